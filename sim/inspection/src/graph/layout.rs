//! Lays out boxes in columns, and sorts each column to keep its arrows short.

use super::model::{Column, Edge, Graph, Node};

pub(super) const BOX_WIDTH: usize = 240;
pub(super) const LINE: usize = 16;
const PADDING: usize = 12;
const ROW_GAP: usize = 14;
const COLUMN_GAP: usize = 72;
const TOP: usize = 70;
const MARGIN: usize = 20;

/// A box in the picture. All lengths are in pixels.
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

/// Height reserved between two boxes for an arrow that skips their column.
const PASSAGE: usize = 6;

/// The positions of all boxes, and the size of the picture.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) areas: Vec<NodeBox>,
    /// The columns that each arrow skips, from left to right: the column's left edge, and the
    /// height at which the arrow passes through it.
    pub(super) passages: Vec<Vec<(usize, usize)>>,
    /// The non-empty columns and their left edges.
    pub(super) columns: Vec<(Column, usize)>,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// An item in a column: either a box, or an arrow that skips the column.
#[derive(Clone, Copy, Debug)]
enum Item {
    Node(usize),
    Passage(usize),
}

impl Layout {
    /// Lays out a picture. Empty columns are omitted. Controllers, and everything to their right,
    /// keep the order that firmware uses. Columns to their left are sorted so that boxes are close
    /// to the targets of their arrows.
    pub(super) fn of(graph: &Graph) -> Self {
        let mut columns = columns(graph);
        let arrows = Arrows::of(graph);
        let tallest = columns.iter().map(|(_, items)| height(graph, items)).max().unwrap_or(0);
        let mut areas = vec![NodeBox::default(); graph.nodes.len()];
        let mut passages = vec![Vec::new(); graph.edges.len()];
        // The height at which each arrow ends in the next column to the right.
        let mut heights = vec![0; graph.edges.len()];
        for (at, (column, items)) in columns.iter_mut().enumerate().rev() {
            if *column < Column::Controller {
                items.sort_by_cached_key(|item| arrows.mean_height(&heights, *item));
            }
            let mut y = TOP + (tallest - height(graph, items)) / 2;
            for item in items.iter() {
                let area = NodeBox { x: left(at), y, height: item_height(graph, *item) };
                match *item {
                    Item::Node(node) => areas[node] = area,
                    Item::Passage(edge) => {
                        passages[edge].insert(0, (area.x, area.middle()));
                        heights[edge] = area.middle();
                    }
                }
                y += area.height + ROW_GAP;
            }
            for (edge, height) in graph.edges.iter().zip(&mut heights) {
                if graph.nodes[edge.to].column == *column {
                    *height = areas[edge.to].middle();
                }
            }
        }
        let count = columns.len().max(1);
        let edges = columns.iter().enumerate().map(|(at, (column, _))| (*column, left(at)));
        Self {
            columns: edges.collect(),
            areas,
            passages,
            width: 2 * MARGIN + count * BOX_WIDTH + (count - 1) * COLUMN_GAP,
            height: TOP + tallest + MARGIN,
        }
    }
}

/// Returns the non-empty columns from left to right, together with the arrows that skip them.
fn columns(graph: &Graph) -> Vec<(Column, Vec<Item>)> {
    let of = |column: Column| {
        let nodes = (0..graph.nodes.len()).filter(|node| graph.nodes[*node].column == column);
        let nodes: Vec<_> = nodes.map(Item::Node).collect();
        let skips = |edge: &Edge| {
            graph.nodes[edge.from].column < column && column < graph.nodes[edge.to].column
        };
        let edges = graph.edges.iter().enumerate();
        let passages = edges.filter(|(_, edge)| skips(edge)).map(|(edge, _)| Item::Passage(edge));
        (!nodes.is_empty()).then(|| (column, nodes.into_iter().chain(passages).collect()))
    };
    Column::ALL.iter().copied().filter_map(of).collect()
}

/// Returns the left edge of a column.
const fn left(column: usize) -> usize {
    MARGIN + column * (BOX_WIDTH + COLUMN_GAP)
}

const fn box_height(node: &Node) -> usize {
    PADDING + LINE * (node.lines.len() + 1)
}

fn item_height(graph: &Graph, item: Item) -> usize {
    match item {
        Item::Node(node) => box_height(&graph.nodes[node]),
        Item::Passage(_) => PASSAGE,
    }
}

fn height(graph: &Graph, items: &[Item]) -> usize {
    items.iter().map(|item| item_height(graph, *item) + ROW_GAP).sum()
}

/// The arrows that leave each box, by their positions.
struct Arrows(Vec<Vec<usize>>);

impl Arrows {
    fn of(graph: &Graph) -> Self {
        let mut arrows = vec![Vec::new(); graph.nodes.len()];
        for (position, edge) in graph.edges.iter().enumerate() {
            arrows[edge.from].push(position);
        }
        Self(arrows)
    }

    /// Returns the mean height of the targets that an item's arrows point to. Boxes without arrows
    /// are placed last.
    fn mean_height(&self, heights: &[usize], item: Item) -> usize {
        match item {
            Item::Passage(edge) => heights[edge],
            Item::Node(node) => {
                let sum: usize = self.0[node].iter().map(|arrow| heights[*arrow]).sum();
                usize::checked_div(sum, self.0[node].len()).unwrap_or(usize::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(column: Column) -> Node {
        Node {
            column,
            id: String::new(),
            title: String::new(),
            lines: Vec::new(),
            is_enabled: true,
        }
    }

    #[test]
    fn arrows_pass_between_the_boxes_of_a_skipped_column() {
        let columns = [Column::Requester, Column::Iommu, Column::Controller];
        let nodes: Vec<_> = (0..9).map(|index| node(columns[index / 3])).collect();
        // Every requester has an arrow to every controller, except that the arrows of the first
        // requester lead through the IOMMUs.
        let through = (3..6).flat_map(|iommu| [(0, iommu), (iommu, iommu + 3)]);
        let past = (1..3).flat_map(|from| (6..9).map(move |to| (from, to)));
        let edges = through.chain(past).map(|(from, to)| Edge { from, to }).collect();
        let mut graph = Graph::default();
        (graph.nodes, graph.edges) = (nodes, edges);
        let layout = Layout::of(&graph);
        let skipping = graph.edges.iter().zip(&layout.passages).filter(|(edge, _)| {
            graph.nodes[edge.from].column == Column::Requester
                && graph.nodes[edge.to].column == Column::Controller
        });
        assert_eq!(skipping.clone().count(), 6);
        for (_, passages) in skipping {
            let [(x, y)] = passages[..] else { panic!("{passages:?}") };
            let met = layout.areas[3..6].iter();
            let mut met = met.filter(|area| area.y <= y && y <= area.y + area.height);
            assert!(met.next().is_none() && x == layout.areas[3].x, "{x}, {y}");
        }
    }
}
