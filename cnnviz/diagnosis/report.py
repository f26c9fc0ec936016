"""Write a diagnosis as HTML: for a notebook, or as a page of its own."""

from __future__ import annotations

import html

from cnnviz import figures

MOST_LISTED = 12  # indices or files of one finding
COLORS = {"fault": "#b3261e", "suspicion": "#8a5a00", "note": "#44546a"}  # on white, over 5:1
STYLE = """
.cnnviz {max-width: 60rem; margin: 0 auto; padding: 0 1rem; color: #1a1a1a; background: #fff;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere}
.cnnviz article {border-left: 5px solid; padding-left: 1rem; margin: 1.5rem 0}
.cnnviz p {margin: .4rem 0}
.cnnviz small {color: #444; font-size: .9em}
.cnnviz img {max-width: 100%; height: auto}
.cnnviz table {border-collapse: collapse; width: 100%; font-size: .9em}
.cnnviz th, .cnnviz td {text-align: left !important; vertical-align: top; padding: .3rem .5rem;
  border-bottom: 1px solid #ddd}
"""


def report_html(diagnosis):
    """A diagnosis as HTML without a page around it, as Jupyter shows it."""
    parts = [f'<style>{STYLE}</style><div class="cnnviz"><p>{html.escape(diagnosis.verdict)}</p>']
    parts += map(_finding_html, diagnosis.findings)
    parts.append("<h2>What was checked</h2><table><tr><th>check</th><th>result</th>")
    parts.append("<th>what it does not cover</th></tr>")
    for check in diagnosis.checks:
        cells = check.name, check.result, check.limits
        parts.append(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    parts.append("</table><p><small>(a to b) is a 95 % confidence interval.</small></p></div>")
    return "\n".join(parts)


def _finding_html(finding):
    color = COLORS[finding.severity]
    lines = [f'<b style="color: {color}">{finding.severity.upper()}</b> {finding.kind}']
    lines += [html.escape(finding.sentence), f"<b>What to do:</b> {html.escape(finding.remedy)}"]
    if finding.cost:
        lines.append(f"Possible effect on accuracy: {100 * finding.cost:.1f} points.")
    lines.append(f"<small>More: <code>{html.escape(finding.call)}</code></small>")
    listed = finding.files if len(finding.files) else finding.indices
    if len(listed):
        names = ", ".join(html.escape(str(one)) for one in listed[:MOST_LISTED])
        rest = f" and {len(listed) - MOST_LISTED:,} more" if len(listed) > MOST_LISTED else ""
        lines.append(f"<small>Images of {finding.split}: {names}{rest}</small>")
    if finding.figure is not None:
        lines.append(figures.figure_html(finding.figure))
    body = "\n".join(f"<p>{line}</p>" for line in lines)
    return f'<article style="border-color: {color}">\n{body}\n</article>'


def page(diagnosis):
    """A diagnosis as one page of HTML that needs no other file."""
    title = f"Diagnosis of {html.escape(diagnosis.model_name)}"
    head = f'<meta charset="utf-8"><title>{title}</title>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = f'<h1 class="cnnviz" style="font-size: 1.8rem">{title}</h1>{report_html(diagnosis)}'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'
