"""A client of the official SDK: MODE TARGET…, where a target is a URL or a command. Prints what it saw."""

import asyncio
import json
import sys

from mcp import Client, MCPError, StdioServerParameters
from mcp.types import ElicitResult

pages = []


async def elicited(context, params):
    pages.append(params.url)
    return ElicitResult(action="accept")


async def called(client, name, arguments):
    try:
        result = await client.call_tool(name, arguments)
    except MCPError as error:
        return {"code": error.code, "text": error.message}
    return {
        "error": result.is_error,
        "text": result.content[0].text,
        "structured": result.structured_content,
        "decision": (result.meta or {}).get("exeat/decision"),
    }


async def main():
    mode, target, *rest = sys.argv[1:]
    server = target if target.startswith("http") else StdioServerParameters(command=target, args=rest)
    async with Client(server, mode=mode, elicitation_callback=elicited) as client:
        told = {"protocol": client.protocol_version}
        # Called before anything is listed: whoever stands between has seen no tool yet.
        told["unlisted"] = await called(client, "dump", {"table": "t"})
        try:
            told["tools"] = sorted(tool.name for tool in (await client.list_tools()).tools)
        except MCPError as error:
            told["tools"] = error.message
        for name, arguments in [
            ("search", {"q": "a"}),
            ("dump", {"table": "t"}),
            ("wipe", {"table": "t"}),
            ("hidden", {}),
        ]:
            told[name] = await called(client, name, arguments)
        told["pages"] = pages
        print(json.dumps(told))


asyncio.run(main())
