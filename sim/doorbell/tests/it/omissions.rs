//! Tests of what a run leaves out, because no driver serves its controller.

use crate::{Folder, board, doorbell, rows};
use gic_firmware::{
    ConfigAccess, Controller, ControllerIndex, ControllerKind, Description, Fact, MsiRouting,
    Parent, PciHost, PlatformDevice, Region, Status, Target,
};

/// Returns `harbour` with a host and two devices whose controllers no driver serves.
fn with_foreign_controllers() -> Description {
    let mut board = board("harbour");
    let window = |base| Region::new(base, 0x10_0000).unwrap();
    let mut host = PciHost::ecam("/pcie@60000000", window(0x6000_0000), MsiRouting::default());
    host.compatible = vec!["vendor,pcie".to_owned(), "snps,dw-pcie".to_owned()];
    host.config = Some(Fact::stated(ConfigAccess::Registers(window(0x6000_0000))));
    board.hosts.push(host);
    let mut to = |controller: Controller, device: &str| {
        let target = Target::Controller(ControllerIndex::new(board.controllers.len()));
        board.controllers.push(controller);
        let parent = Fact::stated(Parent { target, specifier: Vec::new() });
        let msi = MsiRouting { parents: vec![parent], ..MsiRouting::default() };
        board.devices.push(PlatformDevice::new(device, "vendor,dma", msi));
    };
    let inta = || ControllerKind::Other("ti,sci-inta".to_owned());
    to(Controller::new("/inta@61000000", inta(), Some(window(0x6100_0000))), "/dma@62000000");
    let mut off = Controller::new("/v2m@63000000", ControllerKind::V2m, Some(window(0x6300_0000)));
    off.status = Fact::stated(Status::Disabled);
    to(off, "/dma@64000000");
    board
}

#[test]
fn omitted_hosts_and_devices_are_named_with_a_reason() {
    let folder = Folder::new("omissions");
    folder.describe("foreign.dtb", &with_foreign_controllers());
    let path = folder.path("foreign.dtb");
    for choice in ["auto", "its"] {
        let run = ["run", "--messages", "1", "--controller", choice, "--dtb", &path];
        let report = doorbell(&[&run[..], &["--json"]].concat()).with_status(0).json();
        let omitted = rows(&report["omitted"]);
        let expected = [
            ("/pcie@60000000", "names no MSI controller"),
            ("/dma@62000000", "through /inta@61000000: no driver exists for ti,sci-inta"),
            ("/dma@64000000", "through /v2m@63000000, which is disabled"),
        ];
        assert_eq!(omitted.len(), expected.len(), "{omitted:?}");
        for (one, (node, words)) in omitted.iter().zip(expected) {
            assert!(one["id"] == node && one["reason"].as_str().unwrap().contains(words), "{one}");
        }
        assert_eq!(report["totals"]["omitted"], 3);
        let text = doorbell(&run).out;
        assert!(text.contains("\nverdict: clean, 3 omitted\n"), "{text}");
        assert!(expected.iter().all(|(node, _)| text.contains(node)), "{text}");
    }
    let page = doorbell(&["report", "--simulate", "--messages", "1", &path]).out;
    assert!(page.contains("Verdict: clean, 3 omitted") && page.contains("/dma@64000000: signals"));
}
