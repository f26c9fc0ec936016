"""Write a diagnosis as HTML: for a notebook, or as a page of its own."""

from __future__ import annotations

import html

from cnnviz import figures

MOST_LISTED = 12  # indices or files of one finding
COLORS = {"fault": "#b3261e", "suspicion": "#8a5a00", "note": "#44546a"}  # on white, over 5:1
STYLE = """
.cnnviz {max-width: 60rem; margin: 0 auto; padding: 0 1rem; color: #1a1a1a; background: #fff;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere}
.cnnviz article {border-left: 5px solid; padding: .1rem 0 .1rem 1rem; margin: 1.5rem 0}
h1.cnnviz {font-size: 1.8rem}
.cnnviz p {margin: .4rem 0}
.cnnviz .tag {font-weight: bold; text-transform: uppercase; letter-spacing: .04em}
.cnnviz .sentence {font-size: 1.1em}
.cnnviz .more {color: #444; font-size: .9em}
.cnnviz code {background: #f2f2f2; padding: .1em .3em}
.cnnviz img {max-width: 100%; height: auto}
.cnnviz table {border-collapse: collapse; width: 100%; font-size: .9em}
.cnnviz th, .cnnviz td {text-align: left; vertical-align: top; padding: .3rem .5rem;
  border-bottom: 1px solid #ddd}
"""


def report_html(diagnosis):
    """A diagnosis as HTML without a page around it, as Jupyter shows it."""
    parts = [f"<style>{STYLE}</style>", '<div class="cnnviz">']
    parts.append(f"<p class='sentence'>{html.escape(diagnosis.verdict)}</p>")
    parts += map(_finding_html, diagnosis.findings)
    parts.append("<h2>What was checked</h2><table><tr><th>check</th><th>result</th>")
    parts.append("<th>what it does not cover</th></tr>")
    for check in diagnosis.checks:
        cells = check.name, check.result, check.limits
        parts.append(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    parts.append("</table><p class='more'>Brackets hold 95 % confidence intervals.</p></div>")
    return "\n".join(parts)


def _finding_html(finding):
    color, text = COLORS[finding.severity], [html.escape(finding.sentence)]
    parts = [f'<article style="border-color: {color}">']
    parts.append(f'<p><span class="tag" style="color: {color}">{finding.severity}</span>')
    parts.append(f"{finding.kind}</p><p class='sentence'>{text[0]}</p>")
    parts.append(f"<p><b>What to do:</b> {html.escape(finding.remedy)}</p>")
    if finding.cost:
        parts.append(f"<p>Possible effect on accuracy: {100 * finding.cost:.1f} points.</p>")
    parts.append(f"<p class='more'>More: <code>{html.escape(finding.call)}</code></p>")
    listed = finding.files if len(finding.files) else finding.indices
    if len(listed):
        names = ", ".join(html.escape(str(one)) for one in listed[:MOST_LISTED])
        rest = f" and {len(listed) - MOST_LISTED:,} more" if len(listed) > MOST_LISTED else ""
        parts.append(f"<p class='more'>Images of {finding.split}: {names}{rest}</p>")
    if finding.figure is not None:
        parts.append(figures.figure_html(finding.figure))
    return "\n".join([*parts, "</article>"])


def page(diagnosis):
    """A diagnosis as one page of HTML that needs no other file."""
    title = f"Diagnosis of {html.escape(diagnosis.model_name)}"
    head = f'<meta charset="utf-8"><title>{title}</title>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = f'<h1 class="cnnviz">{title}</h1>{report_html(diagnosis)}'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'
