//! Laws of the pictures, for machines with any number of nodes and any names.

use super::*;
use crate::any_machine::machines;
use crate::inspect::Inspection;
use gic_firmware::lint::KnownRegisters;
use proptest::prelude::*;
use roxmltree::{Document, Node};

fn number(node: Node<'_, '_>, name: &str) -> usize {
    node.attribute(name).unwrap().parse().unwrap()
}

/// Checks that a picture is well-formed, has a box for each node and an arrow for each edge, and
/// that boxes neither overlap nor exceed the picture.
fn check(svg: &str, graph: &Graph) -> Result<(), TestCaseError> {
    let document = Document::parse(svg).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let all = |tag: &'static str| {
        document
            .descendants()
            .filter(move |node| node.has_tag_name(("http://www.w3.org/2000/svg", tag)))
    };
    prop_assert_eq!(all("path").count(), graph.edges.len());
    let view: Vec<usize> = document
        .root_element()
        .attribute("viewBox")
        .unwrap()
        .split(' ')
        .map(|part| part.parse().unwrap())
        .collect();
    let mut boxes: Vec<[usize; 4]> = all("rect")
        .map(|one| {
            let (x, y) = (number(one, "x"), number(one, "y"));
            [x, x + number(one, "width"), y, y + number(one, "height")]
        })
        .collect();
    prop_assert_eq!(boxes.len(), graph.nodes.len());
    for [_, right, _, bottom] in &boxes {
        prop_assert!(*right <= view[2] && *bottom <= view[3], "beyond {:?}", view);
    }
    // Boxes of one column have the same left edge.
    boxes.sort_by_key(|one| (one[0], one[2]));
    for pair in boxes.windows(2) {
        let [above, below] = [pair[0], pair[1]];
        prop_assert!(above[0] != below[0] || above[3] <= below[2], "{above:?} over {below:?}");
        prop_assert!(above[0] == below[0] || above[1] <= below[0], "{above:?} beside {below:?}");
    }
    // The tooltip of a box has the whole name, except for characters that XML cannot contain.
    let tips: Vec<_> = all("title").filter_map(|one| one.text()).collect();
    let shown: Vec<_> = all("text").filter_map(|one| one.text()).collect();
    for node in graph.nodes.iter().filter(|node| !node.id.contains(['\u{1}', '\u{ffff}', '\n'])) {
        prop_assert!(tips.iter().any(|tip| tip.lines().next() == Some(&node.id)), "{}", node.id);
        // Such as `interrupt-controller@10000000`.
        let is_short = node.title.chars().count() <= 38;
        prop_assert!(!is_short || shown.contains(&&*node.title), "{} is cut", node.title);
    }
    for one in all("text").filter(|one| one.attribute("class") == Some("title")) {
        let length = one.text().unwrap_or_default().chars().count();
        prop_assert_eq!(one.attribute("textLength").is_some(), length > 28);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn svg_boxes_do_not_overlap_and_show_every_node(source in machines()) {
        let inspection = Inspection::of(&source, &KnownRegisters::default());
        let graph = Graph::of(&source, &inspection);
        check(&svg::draw(&graph, &source.name), &graph)?;
        let badges = vec![Badge { findings: 3, class: "error" }; graph.nodes.len()];
        check(&inline(&graph, &source.name, &badges), &graph)?;
    }
}
