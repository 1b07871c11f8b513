"""The results as tables: medians, ratios, and what is demanded."""

import datetime

from .machine import describe

RIVALS = ["rabbitmq", "mosquitto", "rumqttd", "relay"]
ORDER = ["portolan", *RIVALS, "disk"]


def shown(value):
    """A figure to three significant digits, or a dash."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def rows(scenario, result):
    """The contenders that were measured, and their figures."""
    names = [name for name in ORDER if name in result]
    figures = [figure for figure in scenario["show"] if any(figure in result[name] for name in names)]
    return figures, [(name, [result[name].get(figure) for figure in figures]) for name in names]


def ratios(scenario, result):
    """Portolan's figures divided by those of each other broker and of the relay."""
    ours = result.get("portolan", {})
    figures, _ = rows(scenario, result)
    for rival in RIVALS:
        theirs = result.get(rival, {})
        if ours and theirs:
            yield f"portolan / {rival}", [divided(ours.get(figure), theirs.get(figure)) for figure in figures]


def divided(ours, theirs):
    return ours / theirs if ours is not None and theirs else None


def verdicts(scenario, result):
    """Each goal as (what is demanded, what was measured, met or short)."""
    ours = result.get("portolan", {})
    for goal in scenario["goals"]:
        figure = goal["figure"]
        value = ours.get(figure)
        if "versus" in goal:
            theirs = result.get(goal["versus"], {}).get(goal.get("their_figure", figure))
            demanded, measured, met = compare(goal, value, theirs)
        else:
            bound = goal.get("at_least", goal.get("at_most"))
            demanded = f"{figure} {'≥' if 'at_least' in goal else '≤'} {shown(bound)}"
            measured = shown(value)
            met = value is not None and (value >= bound if "at_least" in goal else value <= bound)
        verdict = "not measured" if measured == "–" else "met" if met else "short"
        yield demanded, measured, verdict


def compare(goal, ours, theirs):
    figure, rival = goal["figure"], goal["versus"]
    if "times" in goal:
        ratio = divided(ours, theirs)
        return f"{figure} ≥ {goal['times']} × {rival}", times(ratio), ratio is not None and ratio >= goal["times"]
    if "less" in goal:
        ratio = divided(theirs, ours)
        return f"{figure} ≤ {rival} / {goal['less']}", over(ratio), ratio is not None and ratio >= goal["less"]
    ratio = divided(ours, theirs)
    whose = f"{rival}'s {goal['their_figure']}" if "their_figure" in goal else rival
    return f"{figure} ≤ {goal['within']} × {whose}", times(ratio), ratio is not None and ratio <= goal["within"]


def times(ratio):
    return "–" if ratio is None else f"{ratio:.2f} ×"


def over(ratio):
    return "–" if ratio is None else f"1 / {ratio:.2f}"


def plain(name, scenario, result):
    """The tables of one scenario for a terminal."""
    figures, measured = rows(scenario, result)
    lines = [[name, *figures]]
    lines += [[who, *map(shown, values)] for who, values in [*measured, *ratios(scenario, result)]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(line, widths))) for line in lines]
    text += [f"  {verdict}: {demanded}: {found}" for demanded, found, verdict in verdicts(scenario, result)]
    return "\n" + "\n".join(text) + "\n"


def markdown(command, scenarios, results):
    """Everything as a page."""
    date = datetime.date.today().isoformat()
    page = ["# Results", "", f"- Command: `{command}`", f"- Machine: {describe()}", f"- Date: {date}", ""]
    page += ["Medians of the rounds; what each figure means is in `README.md`.", "", "## What is demanded", ""]
    page += ["| scenario | demanded | measured | |", "|---|---|---|---|"]
    for name, result in results.items():
        page += [f"| {name} | {demanded} | {found} | {verdict} |" for demanded, found, verdict in verdicts(scenarios[name], result)]
    for name, result in results.items():
        scenario = scenarios[name]
        figures, measured = rows(scenario, result)
        rounds = max((each.get("rounds", 1) for each in result.values()), default=0)
        page += ["", f"## {name}", "", f"{scenario['about']} ({rounds} {'round' if rounds == 1 else 'rounds'}).", ""]
        page += ["| | " + " | ".join(figures) + " |", "|---" * (len(figures) + 1) + "|"]
        page += [f"| {who} | {' | '.join(map(shown, values))} |" for who, values in [*measured, *ratios(scenario, result)]]
    return "\n".join(page) + "\n"
