//! Tests of the files that `doorbell graph` writes. `tests/cmd/graph.trycmd` has its contents.

use crate::Folder;
use std::fs;
use std::path::Path;

#[test]
fn the_documented_graph_matches_the_default_machine() {
    let folder = Folder::new("graph");
    let root = Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let path = folder.path("machine.svg");
    let said = root.run(&["graph", "sim/machine/machines/harbour.dtb", "-o", &path]);
    assert_eq!(said.with_status(0).out, "");
    let shown = fs::read_to_string(root.0.join("docs/machine.svg")).unwrap();
    assert!(
        fs::read_to_string(path).unwrap() == shown,
        "run `doorbell graph sim/machine/machines/harbour.dtb -o docs/machine.svg`"
    );
}
