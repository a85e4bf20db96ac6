"""A LangChain agent with a model that plays a script: which tools ran, and what the model was told.

    langchain_agent.py URL SUBJECT
"""

import json
import sys

sys.path.insert(0, "examples/agents")

from langchain.agents import create_agent
from langchain.messages import AIMessage, ToolMessage
from langchain_agent import Governed
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel

url, subject = sys.argv[1:3]
ran = []


class Scripted(GenericFakeChatModel):
    def bind_tools(self, tools, **_):
        return self


def refund(amount: int) -> str:
    """Gives money back."""
    ran.append(f"refund {amount}")
    return "done"


def wipe(name: str) -> str:
    """Empties a table."""
    ran.append(f"wipe {name}")
    return "done"


def call(name, args):
    return {"name": name, "args": args, "id": f"call-{name}", "type": "tool_call"}


script = iter([
    AIMessage("", tool_calls=[call("refund", {"amount": 3}), call("wipe", {"name": "refund"})]),
    AIMessage("so be it"),
])
governed = Governed(url, subject, "mcp://crm", purpose="work")
agent = create_agent(Scripted(messages=script), [refund, wipe], middleware=[governed])
try:
    messages = agent.invoke({"messages": [("user", "go")]})["messages"]
except OSError as nobody:
    print(json.dumps({"ran": ran, "nobody": str(nobody)}))
    sys.exit(0)
told = {m.name: [m.status, m.content] for m in messages if isinstance(m, ToolMessage)}
print(json.dumps({"ran": ran, "told": told}))
