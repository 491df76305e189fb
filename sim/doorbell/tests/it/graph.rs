//! Checks that `doorbell graph` draws every box and arrow, regardless of their names.

use crate::marina;
use gic_firmware::{Controller, Description, Gic, MsiRouting, PlatformDevice, Region, devicetree};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn graph(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_doorbell")).arg("graph").args(arguments).output().unwrap()
}

fn text(arguments: &[&str]) -> String {
    let output = graph(arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a document's tags. The tags must be balanced.
fn tags(document: &str) -> Vec<&str> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    for part in document.split('<').skip(1) {
        let tag = part.split('>').next().unwrap();
        assert_eq!(part.matches('>').count(), 1, "a stray bracket in {part:?}");
        let name = tag.split_whitespace().next().unwrap();
        if let Some(closed) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed));
        } else {
            all.push(name);
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
    all
}

#[test]
fn svg_and_dot_have_the_same_boxes_and_arrows() {
    let (svg, dot) = (text(&[&marina()]), text(&[&marina(), "--dot"]));
    let tags = tags(&svg);
    let count = |name: &str| tags.iter().filter(|tag| **tag == name).count();
    assert_eq!(count("rect"), dot.matches("[label=").count());
    assert_eq!(count("path"), dot.matches(" -> ").count());
    let mut ids: Vec<_> = svg.split(" id=").skip(1).map(|id| id.split('>').next()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count("rect"), "each identifier belongs to one box");
    assert_eq!((count("rect"), count("path")), (12, 12));
}

#[test]
fn routes_are_drawn_through_iommus() {
    let dot = text(&[&marina(), "--dot"]);
    let node = |what: &str| {
        let line = dot.lines().find(|line| line.contains(what)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    let arrow = |from: &str, to: &str| dot.contains(&format!("{} -> {};", node(from), node(to)));
    // The SMMU sends messages as well, so it also has a box as a requester.
    let smmu = "arm,smmu-v3";
    assert!(arrow("MCFG/0000:00-ff", smmu) && arrow(smmu, "MADT/ITS@4"));
    assert!(!arrow("MCFG/0000:00-ff", "MADT/ITS@4"));
    assert!(arrow("MCFG/0001:00-0f", "MADT/ITS@4"));
    assert!(arrow("MADT/ITS@5", "MADT/GICD@0"));
}

#[test]
fn device_names_in_a_graph_are_escaped() {
    let region = |base| Region::new(base, 0x2_0000).unwrap();
    let name = "/a<b&c\"d>";
    let machine = Description {
        gic: Some(Gic::v3("/gic", region(0x800_0000), [region(0x80a_0000)])),
        controllers: vec![Controller::its("/gic/its", region(0x808_0000))],
        devices: vec![PlatformDevice::new(
            name,
            "vendor,device",
            MsiRouting::device(gic_firmware::ControllerIndex::new(0), 7.into()),
        )],
        ..Description::default()
    };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("graph-names.dtb");
    fs::write(&path, devicetree::write(&machine).unwrap()).unwrap();
    let svg = text(&[path.to_str().unwrap()]);
    assert!(svg.contains("a&lt;b&amp;c&quot;d&gt;"), "{svg}");
    assert_eq!(tags(&svg).iter().filter(|tag| **tag == "rect").count(), 3);
    assert!(text(&[path.to_str().unwrap(), "--dot"]).contains("a<b&c\\\"d>"));
}

#[test]
fn the_file_extension_selects_svg_or_dot() {
    for (name, begin) in [("graph.svg", "<svg "), ("graph.dot", "digraph ")] {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        assert_eq!(text(&[&marina(), "-o", path.to_str().unwrap()]), "");
        assert!(fs::read_to_string(path).unwrap().starts_with(begin));
    }
}

#[test]
fn secondary_gics_point_to_their_parent_gic() {
    let tree = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let tree = tree.join("../../crates/gic-firmware/tests/data/cascaded.dtb");
    let dot = text(&["--dot", tree.to_str().unwrap()]);
    let box_of = |title: &str| {
        let line = dot.lines().find(|line| line.contains(&format!("[label=\"{title}\\n")));
        line.unwrap_or_else(|| panic!("{title}: {dot}")).split_whitespace().next().unwrap()
    };
    for (from, to) in [
        ("frame@2010000", "intc@2000000"),
        ("intc@2000000", "intc@8000000"),
        ("its@8080000", "intc@8000000"),
    ] {
        let arrow = format!("{} -> {}", box_of(from), box_of(to));
        assert!(dot.contains(&arrow), "{arrow}: {dot}");
    }
    assert!(dot.contains("INTID 42 of intc@8000000"), "{dot}");
}

#[test]
fn the_documented_graph_matches_the_default_machine() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.args(["graph", "sim/machine/machines/harbour.dtb"]).current_dir(&root);
    let drawn = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let shown = fs::read_to_string(root.join("docs/machine.svg")).unwrap();
    assert!(
        drawn == shown,
        "run `doorbell graph sim/machine/machines/harbour.dtb -o docs/machine.svg`"
    );
}
