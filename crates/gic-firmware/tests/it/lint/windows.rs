//! Checks that the windows of hosts lead to the doorbells, and that guests need no maintenance
//! interrupt.

use super::faults::findings;
use super::{BASE, dts};
use gic_firmware::lint::{KnownRegisters, check};
use gic_firmware::{Finding, Rule, devicetree};

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
        let machine = devicetree::parse_and_check(&blob).expect("a readable tree");
        let cpu: Vec<_> = machine.hosts[1].dma_windows.iter().map(|one| one.cpu().base()).collect();
        (cpu, check(&machine, &KnownRegisters::default()).len())
    };
    assert_eq!(windows(""), (vec![0x808_0000], 0));
    assert_eq!(windows("dma-ranges;"), (vec![0x808_0000], 0));
    let moved = "dma-ranges = <0x0 0x8000000 0x10 0x8000000 0x0 0x1000000>;";
    assert_eq!(windows(moved), (vec![0x10_0808_0000], 1));
    assert_eq!(windows("dma-ranges = <0x0 0x0 0x0 0x0 0x0 0x1000>;"), (vec![], 1));
}

/// A message must pass each bus between a host or a device and the root, at the address to which
/// the bus below leads.
#[test]
fn a_bus_above_can_hide_a_doorbell() {
    const GIC: &str = "/delete-node/ &its; &pcie { /delete-property/ msi-map; };
        &pcie1 { /delete-property/ msi-map; }; &dma { /delete-property/ msi-parent; };
        &gic { msi-controller; #msi-cells = <0>; ";
    const MOVED: u64 = 1 << 40;
    let direct = format!("{GIC} arm,direct-lpi; }};");
    let mbi = format!("{GIC} mbi-ranges = <256 32>; mbi-alias = <0x0 0x8010000>; }};");
    let frame = "&gic { v2m: v2m@8020000 { compatible = \"arm,gic-v2m-frame\"; msi-controller;
        reg = <0x0 0x8020000 0x0 0x1000>; arm,msi-base-spi = <300>; arm,msi-num-spis = <32>; }; };";
    let mip = "/ { mip: mip@92000000 { compatible = \"brcm,bcm2712-mip\"; msi-controller;
        #msi-cells = <0>; reg = <0x0 0x92000000 0x0 0xc0>, <0xff 0xfffff000 0x0 0x1000>;
        msi-ranges = <&gic 0 400 1 32>; }; };";
    let pre_its = "&its { socionext,synquacer-pre-its = <0x98000000 0x200000>; };";
    // The controller, references from a host and a device, and the doorbell's page on the bus and
    // on the CPUs' side.
    let machines = [
        ("", "&its 0x20000 0x10000", "&its 0x30000", [0x0809_0000; 2]),
        (pre_its, "&its 0x20000 0x100", "&its 0x20010", [0x9808_0000; 2]),
        (&direct, "&gic 0x10000", "&gic", [0x080a_0000; 2]),
        (&mbi, "&gic 0x10000", "&gic", [0x0801_0000; 2]),
        (frame, "&v2m 0x0 0x10000", "&v2m", [0x0802_0000; 2]),
        (mip, "&mip 0x10000", "&mip", [0xff_ffff_f000, 0x9200_0000]),
    ];
    for (machine, map, parent, [bus, cpu]) in machines {
        let cells = |value: u64| format!("{:#x} {:#x}", value >> 32, value & 0xffff_ffff);
        let window = |from, to, size| {
            format!("dma-ranges = <{} {} {}>;", cells(from), cells(to), cells(size))
        };
        let size = if machine == direct { 0x4_0000 } else { 0x1000 };
        let hides = || window(0x4000_0000, 0x4000_0000, 0x1000_0000);
        for (inner, outer, found) in [
            (window(bus, cpu, size), String::new(), 0),
            (window(bus, cpu, size), window(cpu, cpu, size), 0),
            (window(bus, cpu, size), "dma-ranges;".into(), 0),
            (window(bus, MOVED, size), window(MOVED, cpu, size), 0),
            (window(bus, MOVED, size), String::new(), 1),
            (window(bus, cpu, size), hides(), 1),
            (hides(), String::new(), 1),
            (String::new(), hides(), 1),
            // The outer window ends before the doorbell.
            (window(bus - 0x1000, cpu - 0x1000, 0x1000 + size), window(cpu - 0x1000, 0, 0x1000), 1),
        ] {
            let host = format!(
                "pcie@5000000000 {{ device_type = \"pci\"; compatible = \"pci-host-ecam-generic\";
                 reg = <0x50 0x0 0x0 0x10000000>; #address-cells = <3>; #size-cells = <2>;
                 linux,pci-domain = <7>; msi-map = <0x0 {map}>; }};"
            );
            let device = format!("device {{ msi-parent = <{parent}>; }};");
            for requester in [host, device] {
                let bus = "compatible = \"simple-bus\"; ranges; #address-cells = <2>;
                    #size-cells = <2>;";
                let messages = findings(&format!(
                    "{machine} / {{ outer {{ {bus} {outer} inner {{ {bus} {inner} {requester} }}; \
                     }}; }};"
                ));
                let outside = |one: &&Finding| one.rule == Rule::DoorbellOutsideDmaRanges;
                let count = messages.iter().filter(outside).count();
                assert_eq!(count, found, "{machine} {requester} {inner} {outer}: {messages:#?}");
            }
        }
    }
}

#[test]
fn guests_need_no_maintenance_interrupt() {
    let count = |method: &str| {
        let remove = "&gic { /delete-property/ interrupts; };";
        findings(&format!("{remove} / {{ psci {{ method = \"{method}\"; }}; }};")).len()
    };
    assert_eq!((count("smc"), count("hvc")), (1, 0));
}
