//! Draws the picture as SVG. The file needs no scripts, fonts or network access, and is readable on
//! light and dark backgrounds.

use super::layout::{BOX_WIDTH, LINE, Layout, NodeBox};
use super::model::{Column, Edge, Graph, Node};
use std::fmt::{Display, Formatter, Result, Write as _};

/// Maximum length of a line in characters, and of a title (which uses a wider font).
const MAX_CHARACTERS: usize = 33;
const MAX_TITLE: usize = 38;
/// Maximum length of a title whose letters are not narrowed.
const WIDE_TITLE: usize = 28;
/// Distance of a text from both sides of its box.
const PADDING: usize = 10;

/// The picture's style sheet.
pub(crate) const STYLE: &str = "\
  svg { max-width: 100%; height: auto; }
  svg { background: #fff; color: #1c2733; font: 12px ui-sans-serif, system-ui, sans-serif; }
  text { fill: currentColor; }
  .heading { font-size: 13px; font-weight: 600; opacity: .8; }
  .title { font-weight: 600; }
  .line { font-family: ui-monospace, monospace; font-size: 11px; opacity: .85; }
  rect { fill: #eef3f8; stroke: #6b8299; rx: 5; }
  .requester rect { fill: #e8f1ff; stroke: #3d6fb8; }
  .iommu rect { fill: #f3ecff; stroke: #7d57b8; }
  .controller rect { fill: #e6f6ea; stroke: #35824a; }
  .gic rect { fill: #fff3df; stroke: #b57a1e; }
  .node.disabled rect { fill: none; stroke-dasharray: 5 4; }
  .disabled .title, .disabled .line { opacity: .75; }
  path { fill: none; stroke: #6b8299; stroke-width: 1.4; opacity: .7; }
  path.disabled { opacity: .3; stroke-dasharray: 5 4; }
  .node:hover rect { stroke-width: 2.5; }
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

/// A badge that a page adds to a box, with the number of findings and the CSS class of the most
/// severe finding.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Badge {
    pub(crate) findings: usize,
    pub(crate) class: &'static str,
}

/// Draws a picture for a standalone file.
pub fn draw(graph: &Graph, name: &str) -> String {
    let layout = Layout::of(graph);
    let size = format!("width=\"{}\" height=\"{}\"", layout.width, layout.height);
    let mut svg = begin(&layout, &size, "img", name);
    let _ = write!(svg, "<style>\n{STYLE}</style>\n");
    arrows(&mut svg, graph, &layout);
    for (index, (node, area)) in graph.nodes.iter().zip(&layout.areas).enumerate() {
        let _ = writeln!(svg, "<g class=\"{}\" id=\"n{index}\">", classes(node));
        draw_box(&mut svg, node, *area);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// Draws a picture to be embedded in a page that contains [`STYLE`]. Each box is a link to itself,
/// so that it can be focused with the keyboard. Arrows carry the identifiers of both ends. `badges`
/// must have one badge for each box.
pub(crate) fn inline(graph: &Graph, name: &str, badges: &[Badge]) -> String {
    let layout = Layout::of(graph);
    // Use units of the page's text, so that the picture scales with the text.
    let size = format!("width=\"{}.{}rem\"", layout.width / 16, layout.width % 16 * 10 / 16);
    let mut svg = begin(&layout, &size, "group", name);
    arrows(&mut svg, graph, &layout);
    let boxes = graph.nodes.iter().zip(&layout.areas).zip(badges);
    for (index, ((node, area), badge)) in boxes.enumerate() {
        let classes = classes(node);
        let _ = writeln!(svg, "<a class=\"{classes}\" id=\"n{index}\" href=\"#n{index}\">");
        draw_box(&mut svg, node, *area);
        if badge.findings > 0 {
            draw_badge(&mut svg, *area, *badge);
        }
        svg.push_str("</a>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn begin(layout: &Layout, size: &str, role: &str, name: &str) -> String {
    let Layout { width, height, .. } = layout;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" {size} \
         viewBox=\"0 0 {width} {height}\" role=\"{role}\" aria-label=\"{0}\">\n\
         <title>{0}</title>\n",
        Escaped(name)
    )
}

fn arrows(svg: &mut String, graph: &Graph, layout: &Layout) {
    for (column, x) in &layout.columns {
        let _ =
            writeln!(svg, "<text class=\"heading\" x=\"{x}\" y=\"40\">{}</text>", column.heading());
    }
    for (edge, passages) in graph.edges.iter().zip(&layout.passages) {
        let is_enabled = graph.nodes[edge.from].is_enabled && graph.nodes[edge.to].is_enabled;
        arrow(svg, layout, *edge, passages, is_enabled);
    }
}

fn arrow(
    svg: &mut String,
    layout: &Layout,
    edge: Edge,
    passages: &[(usize, usize)],
    is_enabled: bool,
) {
    let Edge { from, to } = edge;
    let (start, end) = (layout.areas[from], layout.areas[to]);
    let (mut x, mut y) = (start.x + BOX_WIDTH, start.middle());
    let mut line = format!("M{x},{y}");
    for &(right, below) in passages {
        bend(&mut line, (x, y), (right, below));
        (x, y) = (right + BOX_WIDTH, below);
        let _ = write!(line, " H{x}");
    }
    bend(&mut line, (x, y), (end.x, end.middle()));
    let class = if is_enabled { "" } else { " class=\"disabled\"" };
    let _ = writeln!(svg, "<path{class} data-from=\"n{from}\" data-to=\"n{to}\" d=\"{line}\"/>");
}

/// Appends a curve that ends at a point and has horizontal tangents at both ends.
fn bend(line: &mut String, (x, y): (usize, usize), (right, below): (usize, usize)) {
    let bend = usize::midpoint(x, right);
    let _ = write!(line, " C{bend},{y} {bend},{below} {right},{below}");
}

fn classes(node: &Node) -> String {
    let state = if node.is_enabled { "" } else { " disabled" };
    format!("node {}{state}", class(node.column))
}

fn draw_box(svg: &mut String, node: &Node, area: NodeBox) {
    let NodeBox { x, y, height } = area;
    let state = if node.is_enabled { None } else { Some("disabled".to_owned()) };
    let title = shortened(&node.title, MAX_TITLE);
    let narrowed = if title.chars().count() > WIDE_TITLE {
        let width = BOX_WIDTH - 2 * PADDING;
        format!(" textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\"")
    } else {
        String::new()
    };
    let tip: Vec<_> = std::iter::once(&node.id).chain(&node.lines).chain(&state).cloned().collect();
    let _ = writeln!(
        svg,
        "<title>{}</title>\n\
         <rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{}\" y=\"{}\"{narrowed}>{}</text>",
        Escaped(&tip.join("\n")),
        x + PADDING,
        y + LINE + 2,
        Escaped(&title)
    );
    for (line, row) in node.lines.iter().zip(2..) {
        let (x, y) = (x + PADDING, y + row * LINE + 2);
        let line = shortened(line, MAX_CHARACTERS);
        let _ = writeln!(svg, "<text class=\"line\" x=\"{x}\" y=\"{y}\">{}</text>", Escaped(&line));
    }
}

/// Draws the number of findings in a box's upper right corner.
fn draw_badge(svg: &mut String, area: NodeBox, badge: Badge) {
    let (x, y, class) = (area.x + BOX_WIDTH, area.y, badge.class);
    let _ = writeln!(
        svg,
        "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"10\"/>\n\
         <text class=\"badge\" x=\"{x}\" y=\"{}\">{}</text>",
        y + 4,
        badge.findings
    );
}

const fn class(column: Column) -> &'static str {
    match column {
        Column::Requester => "requester",
        Column::Iommu => "iommu",
        Column::Controller => "controller",
        Column::SecondaryGic | Column::Gic => "gic",
        Column::Cpus => "cpus",
    }
}

/// Shortens a text from the left, because its end is more significant.
fn shortened(text: &str, most: usize) -> String {
    let count = text.chars().count();
    match count.checked_sub(most) {
        None | Some(0) => text.to_owned(),
        Some(more) => format!("…{}", text.chars().skip(more + 1).collect::<String>()),
    }
}

/// Text that has been escaped for XML.
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
                // XML 1.0 allows neither other control characters nor these (§2.2).
                '\u{fffe}' | '\u{ffff}' => f.write_char('?')?,
                other if other.is_control() => f.write_char('?')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}
