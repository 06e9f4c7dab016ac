"""Our routes for agents: what each sees, attaching and detaching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import agent_named, agents_with, look, resolve, resolve_all
from blocksd.errors import InvalidField, NotFound
from blocksd.http.answers import JSONAnswer
from blocksd.http.api.shapes import AGENT_SCHEMAS, agent_json
from blocksd.http.arguments import list_of, text_of
from blocksd.http.call import AGENTS, READS, WRITES, route
from blocksd.http.description import NUMBER, TEXT, About, keys, known, listed, one_of, or_null
from blocksd.http.letta.agents import agent_id_of
from blocksd.model.label import parse_agent
from blocksd.model.prompt import STYLES, compile_prompt, order, render_block
from blocksd.model.properties import PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.routing import Route

    from blocksd.http.call import Call, Gateway

_LIMIT = 100
_MOST = 1000


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes."""
    read, one = READS + AGENTS, "/api/agents/{agent_id}"
    page = {"limit": {"type": "integer", "minimum": 1, "maximum": _MOST}, "after": TEXT}
    attached = keys({"label": TEXT, "agents": listed(TEXT)})
    new = keys(
        {}, {"id": TEXT, **AGENT_SCHEMAS, "blocks": listed(keys({"name": TEXT})), "attach": listed(TEXT)}, others=False
    )
    sizes = listed(keys({"label": TEXT, "characters": NUMBER}))
    prompts = keys({"agent": TEXT, "style": one_of(*STYLES), "prompt": TEXT, "characters": NUMBER, "blocks": sizes})
    return [
        route(
            "/api/agents",
            "GET",
            list_agents,
            gateway,
            read,
            About(
                "List agents by id.",
                query=page,
                answer=keys({"items": listed(known("Agent")), "next": or_null(TEXT)}),
            ),
        ),
        route(
            "/api/agents",
            "POST",
            create,
            gateway,
            WRITES,
            About(
                "Make an agent with private blocks, attached to shared ones: all of it, or nothing.",
                body=new,
                answer=known("Agent"),
                status=201,
            ),
        ),
        route(one, "GET", retrieve, gateway, read, About("Read an agent.", answer=known("Agent"))),
        route(
            one,
            "PATCH",
            update,
            gateway,
            WRITES,
            About(
                "Change properties of an agent. null takes one away.",
                body=keys({}, AGENT_SCHEMAS, others=False),
                answer=known("Agent"),
            ),
        ),
        route(
            one,
            "DELETE",
            delete,
            gateway,
            WRITES,
            About("Delete an agent with its private blocks.", answer=keys({"id": TEXT})),
        ),
        route(
            f"{one}/blocks/{{label:path}}",
            "PUT",
            attach,
            gateway,
            WRITES,
            About("Attach a block to an agent; one that it has already stays.", answer=attached),
        ),
        route(
            f"{one}/blocks/{{label:path}}",
            "DELETE",
            detach,
            gateway,
            WRITES,
            About("Detach a block from an agent.", answer=attached),
        ),
        route(
            "/api/prompt/{agent_id}",
            "GET",
            prompt,
            gateway,
            read,
            About("Compile the prompt of an agent.", query={"style": one_of(*STYLES)}, answer=prompts),
        ),
    ]


async def list_agents(call: Call) -> dict[str, Any]:
    """List agents; to an agent, itself alone."""
    limit = call.query.number("limit", least=1, most=_MOST) or _LIMIT
    after = call.query.text("after")
    if call.agent is not None:
        found = [await agent_named(call.transport, call.agent)] if after is None or after < call.agent else []
        return {"items": [agent_json(one) for one in found], "next": None}
    page = await call.agents.list(limit=limit, after=after)
    return {"items": [agent_json(one) for one in page.items], "next": page.next}


async def retrieve(call: Call) -> dict[str, Any]:
    return agent_json(await agent_named(call.transport, agent_id_of(call)))


async def create(call: Call) -> JSONAnswer:
    """Create an agent. Without an id, it is made of the name."""
    body = call.body()
    agent, name = text_of(body, "id"), text_of(body, "name")
    if agent is None and name is None:
        raise InvalidField("an agent needs an id, or a name of which one is made", field="id")
    args: dict[str, Any] = {"agent": agent} if agent is not None else {}
    if "blocks" in body:
        args["blocks"] = list_of(body, "blocks", dict)
    args["attach"] = await resolve_all(call.transport, list_of(body, "attach", str))
    args["properties"] = _properties(body, agent, {"id", "blocks", "attach"})
    reply = await call.ask("create_agent", args)
    (made,) = await agents_with(call.transport, [reply["agent"]])
    return JSONAnswer(agent_json(made), 201)


async def update(call: Call) -> dict[str, Any]:
    agent, body = parse_agent(call.path("agent_id")), call.body(with_nulls=True)
    await call.ask("update_agent", {"agent": agent, **_properties(body, agent)})
    return agent_json(await agent_named(call.transport, agent))


async def delete(call: Call) -> dict[str, Any]:
    agent = parse_agent(call.path("agent_id"))
    await call.ask("delete_agent", {"agent": agent})
    return {"id": agent}


def _properties(body: dict[str, Any], agent: str | None, others: Collection[str] = ()) -> dict[str, Any]:
    """Return the properties in a body; a name that is the agent's id is none. Raises InvalidField for an unknown key."""
    unknown = sorted(body.keys() - {*PROPERTIES, *others})
    if unknown:
        raise InvalidField(f"an agent has no {unknown[0][:80]!r}", field=unknown[0][:80])
    found = {name: body[name] for name in PROPERTIES if name in body}
    return found | ({"name": None} if agent is not None and found.get("name") == agent else {})


async def attach(call: Call) -> dict[str, Any]:
    return await _change(call, "attach")


async def detach(call: Call) -> dict[str, Any]:
    return await _change(call, "detach")


async def _change(call: Call, op: str) -> dict[str, Any]:
    agent = parse_agent(call.path("agent_id"))
    if op == "attach":  # else a name that is misspelt would become an agent
        await agent_named(call.transport, agent)
    label = await resolve(call.transport, call.path("label"))
    await call.ask(op, {"agents": [agent]}, label=label)
    return {"label": label, "agents": await call.blocks.agents.ids(label)}


async def prompt(call: Call) -> dict[str, Any]:
    """Compile the prompt; each block's size is that of its part in the style `standard`."""
    agent = agent_id_of(call)
    if call.agent is not None and call.agent != agent:
        raise NotFound(f"there is no agent {agent!r}", agent=agent)
    style = call.query.choice("style", *STYLES)
    sight = await look(call.transport, parse_agent(agent))
    text = compile_prompt(list(sight.blocks.values()), style=style, sources=sight.sources)  # type: ignore[arg-type]
    shown = [block for block in order(sight.blocks.values()) if not (block.hidden or block.is_template)]
    return {
        "agent": agent,
        "style": style,
        "prompt": text,
        "characters": len(text),
        "blocks": [{"label": block.label, "characters": len(render_block(block))} for block in shown],
    }
