//! Tests of the files that `doorbell graph` writes. `tests/cmd/graph.trycmd` has its contents.

use crate::{Folder, marina};
use std::fs;
use std::path::Path;

#[test]
fn the_file_extension_selects_svg_or_dot() {
    let folder = Folder::new("graph");
    for (name, begin) in [("graph.svg", "<svg "), ("graph.dot", "digraph ")] {
        let said = folder.run(&["graph", &marina(), "-o", name]);
        assert_eq!((said.status, said.out.as_str()), (Some(0), ""));
        assert!(fs::read_to_string(folder.0.join(name)).unwrap().starts_with(begin));
    }
}

#[test]
fn the_documented_graph_matches_the_default_machine() {
    let root = Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let drawn = root.run(&["graph", "sim/machine/machines/harbour.dtb"]).out;
    let shown = fs::read_to_string(root.0.join("docs/machine.svg")).unwrap();
    assert!(
        drawn == shown,
        "run `doorbell graph sim/machine/machines/harbour.dtb -o docs/machine.svg`"
    );
}
