//! Plants mistakes that people make in devicetrees, one at a time, in a machine without findings.
//! Exactly one rule must find each mistake, with a message that points to the cause.

use super::{BASE, dts};
use gic_firmware::lint::{KnownRegisters, check};
use gic_firmware::{Finding, devicetree};

/// Additions to the base machine: a second host, wires of many kinds, and devices behind the SMMU.
const MORE: &str = r#"
&gic { interrupts = <1 9 4>; };
&pcie {
	linux,pci-domain = <0>;
	#interrupt-cells = <1>;
	interrupt-map-mask = <0 0 0 7>;
	interrupt-map = <0 0 0 1 &gic 0 0 0 36 4>, <0 0 0 2 &gic 0 0 0 37 4>;
};
/ {
	timer: timer {
		compatible = "arm,armv8-timer";
		interrupts = <1 13 8>, <1 14 8>, <1 11 8>, <1 10 8>;
	};
	pmu: pmu { compatible = "arm,armv8-pmuv3"; interrupts = <1 7 4>; };
	uart: serial@9000000 {
		compatible = "arm,pl011";
		reg = <0x0 0x9000000 0x0 0x1000>;
		interrupts = <0 1 4>;
	};
	rtc: rtc@9010000 {
		compatible = "arm,pl031";
		reg = <0x0 0x9010000 0x0 0x1000>;
		interrupts = <0 2 4>;
	};
	gpu: gpu@9200000 {
		compatible = "vendor,gpu";
		reg = <0x0 0x9200000 0x0 0x1000>;
		interrupts = <0 50 4>;
		iommus = <&smmu 0x30000>;
	};
	pcie1: pcie@5000000000 {
		compatible = "pci-host-ecam-generic";
		device_type = "pci";
		reg = <0x50 0x0 0x0 0x10000000>;
		bus-range = <0x0 0xff>;
		linux,pci-domain = <1>;
		#address-cells = <3>;
		#size-cells = <2>;
		msi-map = <0x0 &its 0x20000 0x10000>;
		iommu-map = <0x0 &smmu 0x20000 0x10000>;
	};
};
"#;

pub(super) fn findings(change: &str) -> Vec<Finding> {
    let blob = dts::compile(&[BASE, MORE, change]);
    check(&devicetree::parse_and_check(&blob).expect("a readable tree"), &KnownRegisters::default())
}

/// A mistake as (change to the machine, the rule that finds it, part of its message).
type Case = (&'static str, &'static str, &'static str);

/// Plants each mistake, and checks that only its rule finds it, with a message that states the
/// cause.
fn check_all(cases: &[Case]) {
    let is_found = |case: &&Case| {
        let (change, rule, words) = **case;
        let found = findings(change);
        let is_alone = found.iter().all(|finding| finding.rule.name() == rule);
        is_alone && found.iter().any(|finding| finding.message.contains(words))
    };
    let missed: Vec<_> = cases.iter().filter(|case| !is_found(case)).collect();
    let found: Vec<_> = missed.iter().map(|(change, ..)| findings(change)).collect();
    assert!(missed.is_empty(), "{missed:#?}: {found:#?}");
}

#[test]
fn fault_base_machine_has_no_findings() {
    assert_eq!(findings(""), []);
}

#[test]
fn mistakes_in_maps_are_found() {
    check_all(&[
        // A map for 16 of 256 buses.
        ("&pcie { msi-map = <0x0 &its 0x0 0x1000>; };", "uncovered-bus", "16 of the 256 buses"),
        // Two hosts, and a host and a device, with the same DeviceIDs or StreamIDs.
        ("&pcie1 { msi-map = <0x0 &its 0x0 0x10000>; };", "shared-device-id", "/pcie@40"),
        ("&dma { msi-parent = <&its 0x20100>; };", "shared-device-id", "0x20100"),
        ("&pcie1 { iommu-map = <0x0 &smmu 0x0 0x10000>; };", "shared-stream-id", "0x0 to 0xffff"),
        ("&gpu { iommus = <&smmu 0x108>; };", "shared-stream-id", "/gpu@9200000"),
        // A mask that clears the bus number.
        ("&pcie { msi-map-mask = <0xff>; };", "shared-device-id", "bits of the bus number"),
        // An entry that begins at an ID which the mask clears.
        (
            "&pcie { msi-map-mask = <0xfff8>; msi-map = <0x4 &its 0x0 0x8000>; };",
            "msi-map-mask",
            "0xfff8",
        ),
        ("&dma { msi-map-mask = <0xffff>; };", "mask-without-map", "`msi-map`"),
        // Overlapping, empty and cut-off entries.
        (
            "&pcie { msi-map = <0x0 &its 0x0 0x8000>, <0x7fff &its 0x40000 0x8001>; };",
            "msi-map-overlap",
            "0x7fff",
        ),
        ("&pcie { msi-map = <0x0 &its 0x0 0x0>; };", "msi-map-range", "0 requesters"),
        ("&pcie { msi-map = <0x0 &its 0x0>; };", "malformed-property", "4 cells"),
        // An entry in another order: the controller first.
        ("&pcie { msi-map = <&its 0x0 0x0 0x10000>; };", "unknown-phandle", "begins with"),
        // References to the wrong node: the GIC for its ITS, the SMMU for the ITS and vice versa.
        ("&pcie { msi-map = <0x0 &gic 0x0 0x10000>; };", "not-an-msi-controller", "below it is"),
        ("&dma { msi-parent = <&gic>; };", "not-an-msi-controller", "msi-controller@8080000"),
        ("&pcie { msi-map = <0x0 &smmu 0x0 0x10000>; };", "not-an-msi-controller", "/iommu@"),
        ("&pcie { iommu-map = <0x0 &its 0x0 0x10000>; };", "not-an-iommu", "/msi-controller@"),
        ("&pcie { msi-map = <0x0 0xdead 0x0 0x10000>; };", "unknown-phandle", "`msi-map`"),
        // An entry that is read as one for a single requester.
        ("&pcie { msi-map = <0x0 0xdead 0x0 0x1 0x10000>; };", "unknown-phandle", "`msi-map`"),
        // Requester IDs of buses that the host does not have, or of none at all.
        (
            "&pcie { bus-range = <0x10 0x1f>; msi-map = <0x0 &its 0x0 0x1000>, \
             <0x1000 &its 0x1000 0x1000>; };",
            "unreachable-map-entry",
            "0x0 to 0xfff",
        ),
        (
            "&pcie { msi-map = <0x8000 &its 0x8000 0x10000>, <0x0 &its 0x0 0x8000>; };",
            "requester-beyond-pci",
            "0x8000",
        ),
        // No map at all.
        ("&pcie { /delete-property/ msi-map; };", "host-without-msi", "msi-controller@8080000"),
    ]);
}

#[test]
fn mistakes_in_controllers_are_found() {
    check_all(&[
        ("&its { #msi-cells = <0>; };", "its-msi-cells", "`#msi-cells` is 0"),
        ("&its { #msi-cells = <2>; };", "its-msi-cells", "`#msi-cells` is 2"),
        ("&its { /delete-property/ #msi-cells; };", "its-msi-cells", "`#msi-cells` is 0"),
        ("&its { status = \"disabled\"; };", "disabled-controller", "is disabled"),
        ("&gic { msi-controller; };", "msi-controller-without-kind", "neither"),
        ("&gic { #msi-cells = <1>; };", "malformed-property", "arm,direct-lpi"),
        ("&dma { msi-parent = <&its>; };", "malformed-property", "1 cell must follow"),
        ("&its { /delete-property/ reg; };", "missing-property", "registers"),
        ("&its { reg = <0x8080000 0x20000>; };", "malformed-property", "8 bytes"),
        ("&its { reg = <0x0 0x8080000 0x0 0x10000>; };", "doorbell-outside-registers", "doorbell"),
        ("&its { reg = <0x0 0x8081000 0x0 0x20000>; };", "frame-alignment", "the ITS"),
        (
            "&gic { reg = <0x0 0x8000000 0x0 0x1000>, <0x0 0x80a0000 0x0 0x40000>; };",
            "frame-size",
            "the distributor",
        ),
        (
            "&gic { reg = <0x0 0x8000000 0x0 0x10000>, <0x0 0x80a1000 0x0 0x40000>; };",
            "frame-alignment",
            "the redistributor region",
        ),
        (
            "&gic { reg = <0x0 0x8000000 0x0 0x10000>, <0x0 0x80a0000 0x0 0x40000>,
                          <0x0 0x80a0000 0x0 0x40000>; };",
            "unused-interface-overlap",
            "the unused CPU interface",
        ),
        (
            "&gic { reg = <0x0 0x8000000 0x0 0x10000>, <0x0 0x80a0000 0x0 0x50000>; };",
            "redistributor-size",
            "0x10000 bytes more",
        ),
        (
            "&gic { reg = <0x0 0x8000000 0x0 0x10000>, <0x0 0x80a0000 0x0 0x20000>; };",
            "too-few-redistributors",
            "1 of 2 CPUs",
        ),
        (
            "&gic { reg = <0x0 0x80a0000 0x0 0x40000>, <0x0 0x8000000 0x0 0x10000>; };",
            "redistributor-size",
            "swapped",
        ),
        (
            "&gic { reg = <0x0 0x8000000 0x0 0x10000>, <0x0 0x8090000 0x0 0x40000>; };",
            "registers-overlap",
            "the ITS",
        ),
        ("&gic { #redistributor-regions = <2>; };", "redistributor-regions", "2 redistributor"),
        ("&gic { redistributor-stride = <0x0 0x1000>; };", "redistributor-stride", "0x1000"),
        ("&gic { compatible = \"arm,gicv3\"; };", "unknown-gic", "arm,gicv3"),
        ("&gic { /delete-property/ interrupt-controller; };", "missing-property", "do not use"),
        ("&cpu1 { reg = <0x0>; };", "duplicate-affinity", "affinity"),
        // MSIs on wires, and SPI numbers in place of INTIDs.
        (
            "&gic { msi-controller; mbi-ranges = <80 8>; };",
            "msi-over-wired",
            "`mbi-ranges` hands out INTIDs 80 to 87; INTID 82 is the wire (SPI 50) of /gpu@9200000",
        ),
        ("&gic { msi-controller; mbi-ranges = <16 8>; };", "mbi-range", "16"),
        ("&its { status = \"enable\"; };", "unknown-status", "\"enable\""),
    ]);
}

#[test]
fn mistakes_in_iommus_and_hosts_are_found() {
    check_all(&[
        ("&smmu { reg = <0x0 0x8080000 0x0 0x20000>; };", "registers-overlap", "the ITS"),
        ("&smmu { reg = <0x0 0x9050000 0x0 0x10000>; };", "frame-size", "the IOMMU"),
        ("&smmu { status = \"disabled\"; };", "disabled-iommu", "/iommu@9050000"),
        ("&smmu { interrupts = <1 5 4>; };", "interrupt-kind", "PPI 5 (INTID 21)"),
        ("&smmu { /delete-property/ interrupts; };", "silent-iommu", "`msi-parent`"),
        ("&gpu { iommus = <&smmu>; };", "malformed-property", "1 cell must follow"),
        ("&gpu { iommus = <&its 0x30000>; };", "not-an-iommu", "/msi-controller@"),
        (
            "&pcie { iommu-map = <0x0 &smmu 0x0 0x8000>, <0x7fff &smmu 0x40000 0x8001>; };",
            "msi-map-overlap",
            "`iommu-map`",
        ),
        (
            "&pcie { iommu-map-mask = <0xfff8>; iommu-map = <0x4 &smmu 0x0 0x8000>; };",
            "msi-map-mask",
            "`iommu-map-mask`",
        ),
        ("&pcie { iommu-map = <0x0 &smmu 0x0 0x1000>; };", "uncovered-bus", "bypass the IOMMU"),
        (
            "&pcie { ranges = <0x2000000 0x0 0x8000000 0x0 0x8000000 0x0 0x10000000>; };",
            "registers-overlap",
            "the PCI window",
        ),
        ("&pcie { reg = <0x40 0x10000000 0x0 0x1000000>; };", "ecam-size", "16 of the 256 buses"),
        ("&pcie1 { reg = <0x40 0x10000000 0x0 0x10000000>; };", "registers-overlap", "ECAM"),
        ("&pcie1 { reg = <0x40 0x18000000 0x0 0x10000000>; };", "registers-overlap", "ECAM"),
        ("&pcie1 { reg = <0x0 0x0 0x0 0x10000000>; };", "registers-overlap", "the distributor"),
        ("&pcie1 { reg = <0x50 0x80000 0x0 0x10000000>; };", "ecam-alignment", "0x100000"),
        ("&pcie1 { linux,pci-domain = <0>; };", "shared-segment", "segment 0x0"),
        ("&pcie { bus-range = <0xff 0x0>; };", "malformed-property", "bus numbers"),
    ]);
}

#[test]
fn mistakes_in_wired_interrupts_are_found() {
    check_all(&[
        ("&rtc { interrupts = <0 2 0>; };", "missing-trigger", "SPI 2 (INTID 34)"),
        ("&rtc { interrupts = <0 2 8>; };", "interrupt-trigger", "level low"),
        ("&rtc { interrupts = <0 2 2>; };", "interrupt-trigger", "falling edge"),
        ("&rtc { interrupts = <0 2 5>; };", "interrupt-trigger", "several triggers"),
        ("&rtc { interrupts = <0 1 1>; };", "contradicting-triggers", "/serial@9000000"),
        (
            "&timer { interrupts = <1 13 0>, <1 14 0>, <1 11 0>, <1 10 0>; };",
            "missing-trigger",
            "of PPI 13 (INTID 29) and of 3 more",
        ),
        (
            "&timer { interrupts = <0 13 4>, <0 14 4>, <0 11 4>, <0 10 4>; };",
            "interrupt-kind",
            "PPI 13",
        ),
        (
            "&timer { interrupts = <1 29 8>, <1 30 8>, <1 27 8>, <1 26 8>; };",
            "interrupt-specifier",
            "INTID 29 is PPI 13",
        ),
        (
            "&timer { interrupts = <1 13 8>, <1 14 8>, <1 14 8>, <1 10 8>; };",
            "shared-private-interrupt",
            "PPI 14",
        ),
        (
            "&timer { interrupts = <1 13 0xf08>, <1 14 0xf08>, <1 11 0xf08>, <1 10 0xf08>; };",
            "cpu-mask",
            "PPI 13 (INTID 29) and of 3 more are 0xf08",
        ),
        (
            "/ { intx: intx { interrupt-controller; #interrupt-cells = <1>; }; };
             &pcie { interrupt-map = <0 0 0 1 &intx 0>, <0 0 0 2 &intx 1>; };",
            "missing-address-cells",
            "/pcie@4010000000",
        ),
        ("&gic { interrupts = <0 9 4>; };", "interrupt-kind", "was PPI 9 meant"),
        ("&gic { interrupts = <0 25 4>; };", "interrupt-kind", "was INTID 25 meant"),
        ("&gic { interrupts = <1 25 4>; };", "interrupt-specifier", "INTID 25 is PPI 9"),
        ("&gic { interrupts = <1 10 4>; };", "shared-private-interrupt", "PPI 10"),
        ("&uart { interrupts = <1 1 4>; };", "interrupt-kind", "single device"),
        ("&uart { interrupts = <0 1001 4>; };", "interrupt-specifier", "SPI 969"),
        ("&uart { interrupts = <0 1>; };", "interrupt-specifier", "`interrupts` has 2 cells"),
        ("&uart { interrupts = <&gic 0 1 4>; };", "interrupt-specifier", "`interrupts-extended`"),
        ("&uart { interrupts = <40 0 1>; };", "interrupt-specifier", "0x28 is not a type"),
        ("&uart { interrupts-extended = <&gic 0 1>; };", "malformed-property", "3 cells"),
        ("&uart { interrupts-extended = <0xdead 0 1 4>; };", "unknown-phandle", "0xdead"),
        ("&uart { interrupt-parent = <0xdead>; };", "unknown-phandle", "`interrupt-parent`"),
        ("&uart { interrupt-parent = <&its>; };", "not-an-interrupt-controller", "/msi-controller"),
        ("/ { /delete-property/ interrupt-parent; };", "missing-interrupt-parent", "other nodes"),
        (
            "&pcie { interrupt-map = <0 0 0 1 &gic 0 36 4>, <0 0 0 2 &gic 0 37 4>; };",
            "interrupt-map-cells",
            "0 cells for the unit address",
        ),
        (
            "&pcie { interrupt-map = <0 0 0 1 &gic 0 0 36 4>, <0 0 0 2 &gic 0 0 37 4>; };",
            "interrupt-map-cells",
            "1 cell for the unit address",
        ),
        ("&pcie { interrupt-map-mask = <0 0 0 0>; };", "interrupt-map-overlap", "never used"),
        (
            "&pcie { interrupt-map = <0 0 0 2 &gic 0 0 0 36 4>, <0 0 0 2 &gic 0 0 0 37 4>; };",
            "interrupt-map-overlap",
            "entries 1 and 2 have the same address and pin",
        ),
        ("&pcie { /delete-property/ #interrupt-cells; };", "missing-property", "`interrupt-map`"),
        ("&gic { #interrupt-cells = <4>; };", "malformed-property", "nodes have 3 cells"),
        ("&pcie { interrupt-map = <0 0 0 1 0xdead 0 0 0 36 4>; };", "unknown-phandle", "0xdead"),
        (
            "&pcie { interrupt-map = <0 0 0 1 &gic 0 0 0 36 8>, <0 0 0 2 &gic 0 0 0 37 8>; };",
            "interrupt-trigger",
            "SPI 36 (INTID 68)",
        ),
    ]);
}

/// Plants mistakes that public commits fixed, which `docs/lint.md` lists.
#[test]
fn mistakes_fixed_by_public_commits_are_reported() {
    const SECOND: &str = "/ { second: interrupt-controller@a000000 { compatible = \"arm,gic-400\";
        interrupt-controller; #interrupt-cells = <3>; interrupts = <0 60 4>;
        reg = <0x0 0xa000000 0x0 0x1000>, <0x0 0xa002000 0x0 0x100>; }; };";
    check_all(&[
        // U-Boot d1555de5fa2: the maintenance interrupt as an SPI.
        ("&gic { interrupts = <0 25 4>; };", "interrupt-kind", "is private"),
        // r8a78000: INTIDs where numbers of SPIs belong.
        ("&uart { interrupts = <0 4078 4>; };", "interrupt-specifier", "SPI 4078"),
        // ipq5332: both edges.
        ("&uart { interrupts = <0 1 3>; };", "interrupt-trigger", "several triggers"),
        // k3-j784s4: a distributor that contains the ITS and the redistributors.
        (
            "&gic { reg = <0x0 0x8000000 0x0 0x200000>, <0x0 0x80a0000 0x0 0x40000>; };",
            "registers-overlap",
            "the distributor",
        ),
        // hi3798cv200, Amlogic T7: the CPU interface of a GIC-400 without GICC_DIR.
        (SECOND, "frame-size", "0x100 bytes, not 0x2000"),
    ]);
}

/// A tree in the shape that QEMU 11.1 writes for `virt,gic-version=x-5`.
#[test]
fn a_devicetree_with_a_gicv5_is_reported() {
    const TREE: &str = r#"/dts-v1/;
/ {
	#address-cells = <2>;
	#size-cells = <2>;
	interrupt-parent = <&gic>;
	gic: interrupt-controller {
		compatible = "arm,gic-v5";
		interrupt-controller;
		#interrupt-cells = <3>;
		#address-cells = <2>;
		#size-cells = <2>;
		ranges;
		irs@8000000 {
			compatible = "arm,gic-v5-irs";
			reg = <0x0 0x8000000 0x0 0x10000>;
			reg-names = "ns-config";
		};
	};
};"#;
    let blob = dts::compile(&[TREE]);
    let found = check(&devicetree::parse(&blob).expect("readable"), &KnownRegisters::default());
    let rules: Vec<_> = found.iter().map(|finding| finding.rule.name()).collect();
    assert_eq!(rules, ["other-gic-version"], "{found:#?}");
}

/// Each CPU has a part of these devices, whose registers are shared.
#[test]
fn per_cpu_timers_may_use_private_interrupts() {
    for compatible in ["samsung,exynos4412-mct", "arm,cortex-a9-twd-timer", "qcom,kpss-timer"] {
        let change = format!("&uart {{ compatible = \"{compatible}\"; interrupts = <1 1 4>; }};");
        assert_eq!(findings(&change), [], "{compatible}");
    }
}

/// Plants mistakes from public bug reports, each with its report.
#[test]
fn devicetree_mistakes_from_bug_reports_are_reported() {
    check_all(&[
        // The SMMUv3 in front of PCI was left "reserved": no MSI arrived.
        // https://github.com/TravMurav/slbounce/issues/13
        ("&smmu { status = \"reserved\"; };", "disabled-iommu", "/iommu@9050000"),
        // `msi-parent` of a host without the cell that `#msi-cells` requires.
        // https://github.com/google/alioth/pull/377
        (
            "&pcie { /delete-property/ msi-map; msi-parent = <&its>; };",
            "malformed-property",
            "1 cell must follow",
        ),
        // Adding an ITS gave the GIC `#address-cells`, to which the map must conform.
        // https://android-kvm.googlesource.com/kvmtool/+/14421de9e076ac4f22dd2b2715bfc878986dc66a
        (
            "&pcie { interrupt-map = <0 0 0 1 &gic 0 3 1>, <0 0 0 2 &gic 0 4 1>; };",
            "interrupt-map-cells",
            "whose `#address-cells` is 2",
        ),
        // Two superfluous cells per entry, because a GIC without `#address-cells` has none.
        // https://github.com/richlowe/illumos-gate/pull/226
        (
            "/ { intc: interrupt-controller@7000000 { interrupt-controller; \
             #interrupt-cells = <3>; #address-cells = <0>; interrupt-parent = <&gic>; \
             compatible = \"arm,gic-400\"; interrupts = <0 60 4>; \
             reg = <0x0 0x7000000 0x0 0x1000>, <0x0 0x7002000 0x0 0x2000>; }; }; \
             &pcie { interrupt-map = <0 0 0 1 &intc 0 0 0 143 4>, <0 0 0 2 &intc 0 0 0 144 4>; };",
            "interrupt-map-cells",
            "2 cells for the unit address",
        ),
        // "gic0: unsupported trigger/polarity configuration 0x08".
        // https://github.com/freebsd/freebsd-src/pull/1861
        ("&uart { interrupts = <0 91 8>; };", "interrupt-trigger", "0x8, level low"),
        // `interrupt-controller` written for `interrupt-parent`.
        // https://www.infradead.org/git/?a=commit&h=7709c33b391e217d73b38853a7914a3a3e285cbc
        ("&uart { interrupt-controller = <&gic>; };", "malformed-property", "`interrupt-parent`"),
        // The redistributors of the last CPUs are in a second region.
        // https://github.com/syswonder/hvisor/issues/271
        (
            "/ { cpus { cpu@2 { device_type = \"cpu\"; reg = <0x2>; }; cpu@3 { device_type = \
             \"cpu\"; reg = <0x3>; }; }; };",
            "too-few-redistributors",
            "room for 2 of 4 CPUs",
        ),
        // The GIC's distributor mapped with too few bytes: GICD_IROUTER is out of reach.
        // https://github.com/RT-Thread/rt-thread/issues/7439
        (
            "&gic { reg = <0x0 0x8000000 0x0 0x4000>, <0x0 0x80a0000 0x0 0x40000>; };",
            "frame-size",
            "0x4000 bytes, not 0x10000",
        ),
        // Two cells per interrupt, because the type was taken for the upper half of the number.
        // https://github.com/rondoval/emu68-genet-driver/issues/19
        ("&uart { interrupts = <157 4>; };", "interrupt-specifier", "`interrupts` has 2 cells"),
        // A four-cell map for several requesters at an IOMMU that takes two cells.
        // https://github.com/qualcomm-linux/kernel-topics/pull/1847
        (
            "&smmu { #iommu-cells = <2>; }; &gpu { iommus = <&smmu 0x30000 0x0>; }; \
             &pcie1 { /delete-property/ iommu-map; };\
             &pcie { iommu-map = <0x0 &smmu 0x0 0x100>; };",
            "malformed-property",
            "`#iommu-cells`",
        ),
    ]);
}
