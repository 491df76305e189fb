use super::*;
use anyhow::{Context as _, ensure};

const TEXT: &str = r#"/dts-v1/;
/ {
    #address-cells = <0x01>;
    #size-cells = <0x01>;
    cpus {
        #address-cells = <0x01>;
        #size-cells = <0x00>;
        cpu@101 {
            device_type = "cpu";
            reg = <0x101>;
        };
    };
    bus {
        ranges = <0x00 0x8000000 0x1000000>;
        intc@0 {
            compatible = "vendor,gic\0arm,gic-v3";
            reg = <0x00 0x10000 0xa0000 0x40000>;
            ranges;
            its@80000 {
                compatible = "arm,gic-v3-its";
                msi-controller;
                #msi-cells = <0x01>;
                reg = <0x80000 0x20000>;
                phandle = <0x01>;
            };
        };
    };
    iommu@1 {
        #iommu-cells = <0x01>;
        status = "disabled";
        phandle = <0x02>;
    };
    pci@2 {
        device_type = "pci";
        bus-range = <0x00 0x0f>;
        msi-map = <0x00 0x01 0x100 0x10000>;
        iommu-map = <0x08 0x02 0x20 0x08>;
    };
    dma@3 {
        msi-parent = <0x01 0x07>;
        iommus = <0x02 0x11>;
    };
    pci@4 {
        device_type = "pci";
        iommu-map = <0x00 0x03 0x40 0x7f 0x01 0x100 0x03 0x41 0x7f 0x01>;
    };
    iommu@5 {
        #iommu-cells = <0x02>;
        phandle = <0x03>;
    };
};
"#;

fn said() -> Value {
    let (its, iommu) = ("/bus/intc@0/its@80000", "/iommu@1");
    let stream = |rid: u32, length: u32, id: u32| {
        json!([{ "iommu": iommu, "enabled": false, "rid_base": rid, "length": length,
            "stream_id_base": id }])
    };
    let silent = [(0, 0x40), (0x100, 0x41)].map(|(rid, id)| {
        json!({ "iommu": "/iommu@5", "enabled": true, "rid_base": rid, "length": 1,
            "stream_id_base": id })
    });
    let route = |length: u32, device: u32, streams: Value| {
        json!([{ "rid_base": 0, "length": length, "controller": its,
            "device_id_base": device, "streams": streams }])
    };
    json!({
        "cpus": [{ "id": "/cpus/cpu@101", "affinity": "0.0.1.1", "enabled": true }],
        "gic": {
            "id": "/bus/intc@0", "version": 3, "distributor": 0x800_0000,
            "redistributors": [{ "base": 0x80a_0000, "size": 0x4_0000, "stride": null }],
            "coherence": "by register",
        },
        "controllers": [{
            "id": its, "kind": "its", "enabled": true, "doorbells": [0x809_0040], "ranges": [],
            "coherence": "by register",
        }],
        "devices": [
            { "id": "/pci@2", "enabled": true, "streams": [],
                "routes": route(0x1000, 0x100, stream(8, 8, 0x20)) },
            { "id": "/dma@3", "enabled": true, "streams": [],
                "routes": route(1, 7, stream(0, 1, 0x11)) },
            { "id": "/pci@4", "enabled": true, "routes": [], "streams": silent },
        ],
        "capacity": [{
            "controller": its, "interrupts": null, "device_id_bits": null,
            "needed_device_id_bits": 13,
        }],
    })
}

#[test]
fn a_difference_in_any_field_is_detected() -> Result<()> {
    let tree = Tree::parse(TEXT)?;
    compare(&said(), &tree)?;
    for field in [
        "/cpus/0/affinity",
        "/gic/redistributors/0/base",
        "/controllers/0/doorbells/0",
        "/devices/0/routes/0/length",
        "/devices/0/routes/0/device_id_base",
        "/devices/0/routes/0/streams/0/stream_id_base",
        "/devices/1/routes/0/streams/0/iommu",
        "/devices/1/routes/0/streams/0/enabled",
        "/devices/2/streams/1/stream_id_base",
        "/capacity/0/needed_device_id_bits",
    ] {
        let mut other = said();
        *other.pointer_mut(field).context("no such field")? = json!("other");
        ensure!(compare(&other, &tree).is_err(), "{field} is not compared");
    }
    Ok(())
}
