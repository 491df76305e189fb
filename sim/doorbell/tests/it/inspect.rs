//! Tests for `doorbell inspect`. `tests/cmd` has its output for files.

use crate::Folder;
use gic_firmware::{
    Controller, ControllerIndex, Description, Fact, Iommu, IommuIndex, IommuRouting, MapEntry,
    MsiRouting, PciHost, PlatformDevice, Region, Role, Status, StreamEntry, Target,
};
use serde_json::json;

#[test]
fn buses_show_their_streams_with_and_without_a_route() {
    let its = Controller::its("/its@1000000", Region::new(0x100_0000, 0x2_0000).unwrap());
    let entry = MapEntry {
        rid_base: 0.into(),
        length: 0x10,
        target: Target::Controller(ControllerIndex::new(0)),
        device_id_base: 0x40.into(),
    };
    let stream = StreamEntry {
        rid_base: 0.into(),
        length: 8,
        iommu: Some(IommuIndex::new(0)),
        stream_id_base: Some(0x80),
    };
    let iommu = IommuRouting { mask: None, map: vec![Fact::stated(stream)] };
    let ecam = Region::new(0x1000_0000, 0x1000_0000).unwrap();
    let silent = PciHost::ecam("/pcie@10000000", ecam, MsiRouting::default());
    let machine = Description {
        controllers: vec![its],
        hosts: vec![PciHost { iommu: iommu.clone(), ..silent }],
        iommus: vec![Iommu {
            id: "/iommu@3000000".into(),
            compatible: vec!["arm,mmu-500".to_owned()],
            status: Fact::stated(Status::Disabled),
            registers: None,
        }],
        devices: vec![PlatformDevice {
            role: Role::Bus,
            iommu,
            ..PlatformDevice::new("/bus@2000000", "fsl,qoriq-mc", MsiRouting::map([entry]))
        }],
        ..Description::default()
    };
    let folder = Folder::new("inspect-bus");
    folder.describe("bus.dtb", &machine);
    let said = folder.run(&["inspect", "--json", "bus.dtb"]).json();
    let [host, bus] = [0, 1].map(|place| &said["devices"][place]);
    let route = &bus["routes"][0];
    assert_eq!(route["iommus"], json!(["/iommu@3000000 (disabled)"]));
    let streams = json!([{
        "iommu": "/iommu@3000000", "enabled": false,
        "rid_base": 0, "length": 8, "stream_id_base": 0x80,
    }]);
    assert_eq!((&route["streams"], &bus["streams"]), (&streams, &json!([])));
    assert_eq!((&host["routes"], &host["streams"]), (&json!([]), &streams));
}
