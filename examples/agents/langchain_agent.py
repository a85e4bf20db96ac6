"""A LangChain agent whose every tool call is decided by exeat first: a middleware, over AuthZEN.

    pip install langchain
    agent = create_agent(model, tools, middleware=[Governed("http://127.0.0.1:7430", "billing-agent", "mcp://crm")])
"""

import json
import urllib.request

from langchain.agents.middleware import AgentMiddleware
from langchain.messages import ToolMessage


class Governed(AgentMiddleware):
    """Asks before each tool; what is denied is told to the model, and what nobody can say ends the run."""

    def __init__(self, url, subject, server, **context):
        super().__init__()
        self.url, self.subject, self.server, self.context = url, subject, server, context

    def decide(self, tool, arguments):
        """The answer of `POST /access/v1/evaluation`; an exception where there is none."""
        resource = {"type": "tool", "id": f"{self.server}/{tool}", "properties": {"arguments": arguments}}
        question = {
            "subject": {"type": "agent", "id": self.subject},
            "action": {"name": "tools/call"},
            "resource": resource,
            "context": self.context,
        }
        request = urllib.request.Request(
            self.url + "/access/v1/evaluation",
            json.dumps(question).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=1) as answer:
            return json.load(answer)

    def refusal(self, call):
        """What the model is told in place of the tool's result; None where it may be called."""
        told = self.decide(call["name"], call["args"])
        if told["decision"] is True:
            return None
        why = json.dumps(told.get("context", {}))
        said = f"Denied, and not to be tried again or worked around: {why}"
        return ToolMessage(said, tool_call_id=call["id"], name=call["name"], status="error")

    def wrap_tool_call(self, request, handler):
        return self.refusal(request.tool_call) or handler(request)

    async def awrap_tool_call(self, request, handler):
        return self.refusal(request.tool_call) or await handler(request)
