//! The picture as SVG: no script, no font, no network; readable on light and dark.

use super::layout::{BOX_WIDTH, LINE, Layout, Place};
use super::model::{Column, Graph, Node};
use std::fmt::{Display, Formatter, Result, Write as _};

/// Characters of a line that fit into a box.
const MAX_CHARACTERS: usize = 33;

const STYLE: &str = "\
  svg { background: #fff; color: #1c2733; font: 12px ui-sans-serif, system-ui, sans-serif; }
  text { fill: currentColor; }
  .heading { font-size: 13px; font-weight: 600; opacity: .65; }
  .title { font-weight: 600; }
  .line { font-family: ui-monospace, monospace; font-size: 11px; opacity: .8; }
  rect { fill: #eef3f8; stroke: #6b8299; rx: 5; }
  .requester rect { fill: #e8f1ff; stroke: #3d6fb8; }
  .iommu rect { fill: #f3ecff; stroke: #7d57b8; }
  .controller rect { fill: #e6f6ea; stroke: #35824a; }
  .gic rect { fill: #fff3df; stroke: #b57a1e; }
  .disabled { opacity: .45; }
  .disabled rect { stroke-dasharray: 5 4; }
  path { fill: none; stroke: #6b8299; stroke-width: 1.4; opacity: .7; }
  path.disabled { opacity: .3; stroke-dasharray: 5 4; }
  g.node:hover rect { stroke-width: 2.5; }
  @media (prefers-color-scheme: dark) {
    svg { background: #161b21; color: #dfe7ef; }
    rect { fill: #232c36; }
    .requester rect { fill: #1c2b44; }
    .iommu rect { fill: #2c2340; }
    .controller rect { fill: #1b3324; }
    .gic rect { fill: #3a2d17; }
    path { stroke: #93a7bb; }
  }
";

/// Draws a picture.
pub(super) fn draw(graph: &Graph, name: &str) -> String {
    let layout = Layout::of(graph);
    let (width, height) = (layout.width, layout.height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n",
        Escaped(name)
    );
    for (column, x) in &layout.columns {
        let _ =
            writeln!(svg, "<text class=\"heading\" x=\"{x}\" y=\"40\">{}</text>", column.heading());
    }
    for edge in &graph.edges {
        let (from, to) = (layout.places[edge.from], layout.places[edge.to]);
        let is_enabled = graph.nodes[edge.from].is_enabled && graph.nodes[edge.to].is_enabled;
        arrow(&mut svg, from, to, is_enabled);
    }
    for (node, place) in graph.nodes.iter().zip(&layout.places) {
        draw_box(&mut svg, node, *place);
    }
    svg.push_str("</svg>\n");
    svg
}

fn arrow(svg: &mut String, from: Place, to: Place, is_enabled: bool) {
    let (x, y, end) = (from.x + BOX_WIDTH, from.middle(), to.x);
    let bend = usize::midpoint(x, end);
    let class = if is_enabled { "" } else { " class=\"disabled\"" };
    let _ = writeln!(
        svg,
        "<path{class} d=\"M{x},{y} C{bend},{y} {bend},{} {end},{}\"/>",
        to.middle(),
        to.middle()
    );
}

fn draw_box(svg: &mut String, node: &Node, place: Place) {
    let state = if node.is_enabled { "" } else { " disabled" };
    let Place { x, y, height } = place;
    let kind = class(node.column);
    let tip = [std::slice::from_ref(&node.id), &node.lines].concat().join("\n");
    let _ = writeln!(
        svg,
        "<g class=\"node {kind}{state}\" id=\"{kind}:{}\"><title>{}</title>\n\
         <rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{}\" y=\"{}\">{}</text>",
        Escaped(&node.id),
        Escaped(&tip),
        x + 10,
        y + LINE + 2,
        Escaped(&shortened(&node.title))
    );
    for (line, row) in node.lines.iter().zip(2..) {
        let (x, y) = (x + 10, y + row * LINE + 2);
        let line = shortened(line);
        let _ = writeln!(svg, "<text class=\"line\" x=\"{x}\" y=\"{y}\">{}</text>", Escaped(&line));
    }
    svg.push_str("</g>\n");
}

const fn class(column: Column) -> &'static str {
    match column {
        Column::Requester => "requester",
        Column::Iommu => "iommu",
        Column::Controller => "controller",
        Column::Gic => "gic",
        Column::Cpus => "cpus",
    }
}

/// A text that fits, shortened from the left: its end tells more.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    match count.checked_sub(MAX_CHARACTERS) {
        None | Some(0) => text.to_owned(),
        Some(more) => format!("…{}", text.chars().skip(more + 1).collect::<String>()),
    }
}

/// A text inside of XML.
struct Escaped<'t>(&'t str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\n' => f.write_char('\n')?,
                // XML 1.0 has no other control characters.
                other if other.is_control() => f.write_char('?')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}
