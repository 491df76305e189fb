//! Writes the picture as DOT, for Graphviz.

use super::model::{Column, Graph};
use std::fmt::Write as _;

/// Renders a picture as DOT.
pub fn spell(graph: &Graph) -> String {
    let mut dot = String::from(
        "digraph doorbell {\n  rankdir=LR;\n\
         \x20 node [shape=box, style=rounded, fontname=\"sans-serif\"];\n",
    );
    for column in Column::ALL {
        let nodes = graph.nodes.iter().enumerate().filter(|(_, node)| node.column == column);
        let _ = writeln!(dot, "  {{ rank=same;");
        for (index, node) in nodes {
            let label = [std::slice::from_ref(&node.title), &node.lines].concat().join("\n");
            let style = if node.is_enabled { "" } else { ", style=\"rounded,dashed\"" };
            let _ = writeln!(
                dot,
                "    n{index} [label={}, tooltip={}{style}];",
                quoted(&label),
                quoted(&node.id)
            );
        }
        dot.push_str("  }\n");
    }
    for edge in &graph.edges {
        let _ = writeln!(dot, "  n{} -> n{};", edge.from, edge.to);
    }
    dot.push_str("}\n");
    dot
}

/// Quotes a string for DOT, and escapes line breaks.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
