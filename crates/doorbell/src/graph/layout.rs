//! Places of boxes: columns, each in the order that keeps its arrows short.

use super::model::{Column, Graph, Node};

pub(super) const BOX_WIDTH: usize = 240;
pub(super) const LINE: usize = 16;
const PADDING: usize = 12;
const ROW_GAP: usize = 14;
const COLUMN_GAP: usize = 72;
const TOP: usize = 70;
const MARGIN: usize = 20;

/// A box in the picture, in pixels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NodeBox {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) height: usize,
}

impl NodeBox {
    pub(super) const fn middle(self) -> usize {
        self.y + self.height / 2
    }
}

/// Places of all boxes, and the size of the picture.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) areas: Vec<NodeBox>,
    /// Columns that hold boxes, and the left edge of each.
    pub(super) columns: Vec<(Column, usize)>,
    pub(super) width: usize,
    pub(super) height: usize,
}

impl Layout {
    /// Lays a picture out. Empty columns take no room. Controllers and what is right of them keep
    /// firmware's order; left of them, boxes stand near what their arrows lead to.
    pub(super) fn of(graph: &Graph) -> Self {
        let mut columns = columns(graph);
        let tallest = columns.iter().map(|(_, nodes)| height(graph, nodes)).max().unwrap_or(0);
        let mut areas = vec![NodeBox::default(); graph.nodes.len()];
        for (at, (column, nodes)) in columns.iter_mut().enumerate().rev() {
            if *column < Column::Controller {
                let averages = averages(graph, &areas);
                nodes.sort_by_key(|&node| averages[node]);
            }
            let mut y = TOP + (tallest - height(graph, nodes)) / 2;
            for &node in nodes.iter() {
                let height = box_height(&graph.nodes[node]);
                areas[node] = NodeBox { x: left(at), y, height };
                y += height + ROW_GAP;
            }
        }
        let count = columns.len().max(1);
        let edges = columns.iter().enumerate().map(|(at, (column, _))| (*column, left(at)));
        Self {
            columns: edges.collect(),
            areas,
            width: 2 * MARGIN + count * BOX_WIDTH + (count - 1) * COLUMN_GAP,
            height: TOP + tallest + MARGIN,
        }
    }
}

/// The columns that hold boxes, from left to right.
fn columns(graph: &Graph) -> Vec<(Column, Vec<usize>)> {
    let of = |column: &Column| {
        let all = graph.nodes.iter().enumerate();
        let here = all.filter(|(_, node)| node.column == *column).map(|(index, _)| index);
        (*column, here.collect())
    };
    Column::ALL.iter().map(of).filter(|(_, nodes): &(_, Vec<_>)| !nodes.is_empty()).collect()
}

/// The left edge of a column.
const fn left(column: usize) -> usize {
    MARGIN + column * (BOX_WIDTH + COLUMN_GAP)
}

const fn box_height(node: &Node) -> usize {
    PADDING + LINE * (node.lines.len() + 1)
}

fn height(graph: &Graph, nodes: &[usize]) -> usize {
    nodes.iter().map(|&node| box_height(&graph.nodes[node]) + ROW_GAP).sum()
}

/// The mean height of what each box's arrows lead to; boxes without arrows come last.
fn averages(graph: &Graph, areas: &[NodeBox]) -> Vec<usize> {
    let mut sums = vec![(0, 0usize); graph.nodes.len()];
    for edge in &graph.edges {
        let (sum, count) = &mut sums[edge.from];
        *sum += areas[edge.to].middle();
        *count += 1;
    }
    sums.into_iter()
        .map(|(sum, count)| usize::checked_div(sum, count).unwrap_or(usize::MAX))
        .collect()
}
