//! Checks that the windows of hosts lead to the doorbells, and that guests need no maintenance
//! interrupt.

use super::faults::findings;
use super::{BASE, dts};
use gic_firmware::lint::{KnownRegisters, check};
use gic_firmware::{Rule, devicetree};

/// Doorbells of each kind, with windows that hide them and windows that lead to them. The windows
/// of the latter differ only in their second entry.
#[test]
fn windows_must_lead_to_each_doorbell() {
    const RAM: &str = "0x2000000 0x0 0x40000000 0x0 0x40000000 0x0 0x40000000";
    const MIP: &str = "/ { mip: mip@92000000 { compatible = \"brcm,bcm2712-mip\"; msi-controller;
        #msi-cells = <0>; reg = <0x0 0x92000000 0x0 0xc0>, <0xff 0xfffff000 0x0 0x1000>;
        msi-ranges = <&gic 0 400 1 32>; }; }; &pcie { msi-map = <0x0 &mip 0x10000>; };";
    const ITS: &str = "0x0 0x8080000 0x0 0x8080000 0x0 0x20000";
    const PRE_ITS: &str = "&its { socionext,synquacer-pre-its = <0x98000000 0x200000>; };
        &pcie { msi-map = <0x0 &its 0x4000 0x10000>; };";
    const BRIDGE: &str = "&pcie { /delete-property/ msi-map; bridge@0,0 { device_type = \"pci\";
        reg = <0 0 0 0 0>; #address-cells = <3>; #size-cells = <2>;
        msi-map = <0x0 &its 0x0 0x10000>; }; };";
    let cases = [
        ("", "0x40 0x8080000 0x0 0x8080000 0x0 0x20000", ITS),
        ("&smmu { status = \"disabled\"; }; &pcie { iommu-map = <0 &smmu 0 1>; };", RAM, ITS),
        (MIP, ITS, "0xff 0xfffff000 0x0 0x92000000 0x0 0x1000"),
        (MIP, "0xff 0xfffff000 0x0 0x92001000 0x0 0x1000", {
            "0xff 0xffff0000 0x0 0x91ff1000 0x0 0x10000"
        }),
        (PRE_ITS, "0x0 0x98000000 0x0 0x98000000 0x0 0x10000", {
            "0x0 0x98000000 0x0 0x98000000 0x0 0x60000"
        }),
        (BRIDGE, RAM, ITS),
        (
            "&its { status = \"disabled\"; }; &pcie { msi-map = <0x0 &gic 0x0 0x10000>; };
             &gic { msi-controller; mbi-ranges = <256 32>; mbi-alias = <0x0 0x8010000>; };",
            "0x0 0x8000000 0x0 0x8000000 0x0 0x10000",
            "0x0 0x8010000 0x0 0x8010000 0x0 0x10000",
        ),
        (
            "&pcie { msi-map = <0x0 &gic 0x10000>; }; &pcie1 { /delete-property/ msi-map; };
             &dma { /delete-property/ msi-parent; }; /delete-node/ &its;
             &gic { msi-controller; #msi-cells = <0>; arm,direct-lpi; };",
            "0x0 0x80c0000 0x0 0x80c0000 0x0 0x20000",
            "0x0 0x80a0000 0x0 0x80a0000 0x0 0x40000",
        ),
    ];
    for (machine, hides, leads) in cases {
        let count = |window: &str| {
            let window = window.trim_start_matches("0x2000000 ");
            let host = "&pcie { /delete-property/ iommu-map; };";
            let host = if machine.contains("iommu-map") { "" } else { host };
            let found = findings(&format!(
                "{host} {machine} &pcie {{ dma-ranges = <{RAM}>, <0x2000000 {window}>; }};"
            ));
            found.iter().filter(|one| one.rule == Rule::DoorbellOutsideDmaRanges).count()
        };
        assert_eq!((count(hides), count(leads)), (1, 0), "{machine}");
    }
}

/// Buses above a host translate the addresses in its windows.
#[test]
fn windows_are_translated_by_buses_above() {
    let windows = |above: &str| {
        let blob = dts::compile(&[
            BASE,
            &format!(
                "/ {{ bus {{ compatible = \"simple-bus\"; ranges;
             #address-cells = <2>; #size-cells = <2>;
             {above} pcie@5000000000 {{ device_type = \"pci\";
             compatible = \"pci-host-ecam-generic\";
             reg = <0x50 0x0 0x0 0x10000000>; #address-cells = <3>; #size-cells = <2>;
             msi-map = <0x0 &its 0x20000 0x10000>;
             dma-ranges = <0x2000000 0x0 0x8080000 0x0 0x8080000 0x0 0x20000>; }}; }}; }};"
            ),
        ]);
        let machine = devicetree::parse(&blob).expect("a readable tree");
        let cpu: Vec<_> = machine.hosts[1].dma_windows.iter().map(|one| one.cpu().base()).collect();
        (cpu, check(&machine, &KnownRegisters::default()).len())
    };
    assert_eq!(windows(""), (vec![0x808_0000], 0));
    assert_eq!(windows("dma-ranges;"), (vec![0x808_0000], 0));
    let moved = "dma-ranges = <0x0 0x8000000 0x10 0x8000000 0x0 0x1000000>;";
    assert_eq!(windows(moved), (vec![0x10_0808_0000], 1));
    assert_eq!(windows("dma-ranges = <0x0 0x0 0x0 0x0 0x0 0x1000>;"), (vec![], 0));
}

#[test]
fn guests_need_no_maintenance_interrupt() {
    let count = |method: &str| {
        let remove = "&gic { /delete-property/ interrupts; };";
        findings(&format!("{remove} / {{ psci {{ method = \"{method}\"; }}; }};")).len()
    };
    assert_eq!((count("smc"), count("hvc")), (1, 0));
}
