//! Findings about several GICs, and about the properties that connect a secondary GIC to its
//! parent.

use super::findings;
use gic_firmware::lint::KnownRegisters;

/// Returns the findings for a second GIC with these properties.
fn beside(properties: &str) -> Vec<String> {
    let change = format!(
        "/ {{ gic2: interrupt-controller@7000000 {{ compatible = \"arm,gic-400\"; \
         reg = <0x0 0x7000000 0x0 0x1000>; interrupt-controller; #interrupt-cells = <3>; \
         {properties} }}; }};"
    );
    findings(&change, &KnownRegisters::default())
        .iter()
        .map(|finding| format!("{} {}: {}", finding.rule, finding.origin, finding.message))
        .collect()
}

const PLACE: &str = "/interrupt-controller@7000000";

#[test]
fn unconnected_parent_interrupts_of_a_gic_are_reported() {
    let cases = [
        ("", "interrupts", "it states no interrupt of /interrupt-controller@8000000"),
        (
            "interrupt-parent = <0xdead>; interrupts = <0 9 4>;",
            "interrupt-parent",
            "it refers to no node",
        ),
        ("interrupts-extended = <0xdead 0 9 4>;", "interrupts-extended", "it refers to no node"),
        (
            "interrupt-parent = <&dma>; interrupts = <0 9 4>;",
            "interrupt-parent",
            "/dma-controller@9100000 takes no interrupts",
        ),
    ];
    for (properties, item, message) in cases {
        assert_eq!(beside(properties), [format!("cascaded-gic {PLACE}: {item}: {message}")]);
    }
}

#[test]
fn impossible_parent_interrupts_are_reported() {
    let found = beside("interrupts = <0 9>;");
    let place = "it states no interrupt of /interrupt-controller@8000000";
    let message = format!("cascaded-gic {PLACE}: interrupts: {place}");
    assert!(found.contains(&message), "{found:?}");
    let found = beside("interrupts = <0 988 4>;");
    let absent = "SPI 988 does not exist: SPIs have the numbers 0 to 987; INTID 988 is SPI 956";
    let message = format!("cascaded-gic {PLACE}: interrupts: {absent}");
    assert!(found.contains(&message), "{found:?}");
}

#[test]
fn sound_and_disabled_secondary_gics_yield_no_findings() {
    for properties in [
        "interrupts = <0 9 4>;",
        "interrupts-extended = <&gic 0 9 4>;",
        "status = \"disabled\";",
        "status = \"disabled\"; interrupt-parent = <&gic2>;",
    ] {
        assert_eq!(beside(properties), [""; 0], "{properties}");
    }
}

#[test]
fn a_disabled_parent_gic_is_reported() {
    let change = "interrupt-parent = <&gic3>; interrupts = <0 9 4>; }; \
                  gic3: interrupt-controller@6000000 { compatible = \"arm,gic-400\"; \
                  reg = <0x0 0x6000000 0x0 0x1000>; interrupt-controller; \
                  #interrupt-cells = <3>; status = \"disabled\";";
    let message = "interrupt-parent: /interrupt-controller@6000000 is disabled";
    assert_eq!(beside(change), [format!("cascaded-gic {PLACE}: {message}")]);
}

#[test]
fn a_cycle_of_cascaded_gics_is_reported_as_having_no_root() {
    let found = beside(
        "interrupts = <0 9 4>; }; }; \
         &gic { interrupt-parent = <&gic2>; interrupts = <0 8 4>; }; / { x {",
    );
    let message = "it is cascaded to /interrupt-controller@7000000, so that no GIC is the root";
    let place = "/interrupt-controller@8000000: interrupt-parent";
    assert_eq!(found, [format!("cascaded-gic {place}: {message}")]);
}
