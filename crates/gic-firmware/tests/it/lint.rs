//! Checks the examples in each rule's explanation. The fault must result in the rule's finding, and
//! the fix in no findings.

mod bounds;
mod dts;
mod faults;
mod windows;

use gic_firmware::lint::{KnownRegisters, check};
use gic_firmware::{Finding, NodeId, Rule, devicetree};
use std::collections::BTreeMap;

const BASE: &str = include_str!("../../rules/base.dts");

/// Returns the contents of the fenced blocks in this language.
fn fenced<'e>(explanation: &'e str, language: &str) -> Vec<&'e str> {
    let fence = format!("```{language}\n");
    let parts = explanation.split(&*fence).skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default()).collect()
}

/// Returns the register values that an explanation states.
fn known(explanation: &str) -> KnownRegisters {
    let mut known = KnownRegisters::default();
    let Some(json) = fenced(explanation, "json").first().copied() else { return known };
    let words: Vec<_> = json.split('"').skip(1).step_by(2).collect();
    let number = |text: &str| {
        u64::from_str_radix(text.strip_prefix("0x").expect("hexadecimal"), 16).expect("a number")
    };
    match *words.as_slice() {
        ["GICD_TYPER", value] => known.gicd_typer = u32::try_from(number(value)).ok(),
        ["GICR_TYPER", value] => known.gicr_typer.push(number(value)),
        ["GITS_TYPER", its, value] => {
            known.gits_typer = BTreeMap::from([(NodeId::new(its), number(value))]);
        }
        ref other => panic!("{other:?} does not contain registers"),
    }
    known
}

fn findings(change: &str, known: &KnownRegisters) -> Vec<Finding> {
    let blob = dts::compile(&[BASE, change]);
    check(&devicetree::parse_and_check(&blob).expect("a readable tree"), known)
}

/// Returns the rules that a devicetree can violate.
fn devicetree_rules() -> impl Iterator<Item = Rule> {
    Rule::ALL.iter().copied().filter(|rule| rule.explanation().contains("```dts"))
}

#[test]
fn base_machine_is_free_of_findings() {
    assert_eq!(findings("", &KnownRegisters::default()), []);
}

#[test]
fn a_devicetree_names_hypervisor_and_psci() {
    let change = "/ { hypervisor { compatible = \"xen,xen\"; }; psci { method = \"hvc\"; }; };";
    let machine =
        devicetree::parse_and_check(&dts::compile(&[BASE, change])).expect("a readable tree");
    let named = [machine.hypervisor, machine.psci].map(|fact| fact.map(|fact| fact.value));
    assert_eq!(named, ["xen,xen", "hvc"].map(|text| Some(text.to_owned())));
    let base = devicetree::parse_and_check(&dts::compile(&[BASE])).expect("a readable tree");
    assert_eq!((base.hypervisor, base.psci), (None, None));
}

#[test]
fn bridges_are_recognized_by_each_spelling() {
    let own = |compatible: &str, regions: &str, lines: &str| {
        let host = format!(
            "/ {{ bridge {{ compatible = \"{compatible}\"; device_type = \"pci\";
             #address-cells = <3>; #size-cells = <2>; reg-names = {regions};
             reg = <0x1 0x0 0x0 0x10000>, <0x2 0x0 0x0 0x10000>; interrupt-names = {lines};
             interrupts = <0 60 4>, <0 61 4>, <0 62 4>; }}; }};"
        );
        let machine =
            devicetree::parse_and_check(&dts::compile(&[BASE, &host])).expect("a readable tree");
        let one = machine.controller(machine.hosts.last()?.own_controller?)?;
        let lines: Vec<_> = one.lines.iter().map(|line| line.intid.get() - 32).collect();
        Some((one.kind.to_string(), one.registers.as_ref()?.base() >> 32, lines))
    };
    let imsi = |region, lines| Some((String::from("imsi-rx"), region, lines));
    let plain = "\"a\", \"b\", \"c\"";
    let named = "\"msi\", \"msi0\", \"msi1\"";
    for (compatible, regions, lines, expected) in [
        ("vendor,pcie", "\"config\", \"dbi\"", plain, imsi(2, vec![60])),
        ("vendor,pcie", "\"config\", \"dbi\"", named, imsi(2, vec![61, 62])),
        ("amlogic,axg-pcie", "\"cfg\", \"elbi\"", plain, imsi(2, vec![60])),
        ("vendor,pcie", "\"cfg\", \"elbi\"", plain, None),
        ("qcom,pcie-x", "\"elbi\", \"dbi\"", plain, imsi(2, vec![60])),
        ("rockchip,rk3568-pcie", "\"pcie-apb\", \"pcie-dbi\"", plain, imsi(2, vec![60])),
        ("qcom,pcie-sa8255p", "\"config\"", "\"a\", \"msi0\", \"msi1\"", imsi(1, vec![61, 62])),
    ] {
        assert_eq!(own(compatible, regions, lines), expected, "{compatible} {regions} {lines}");
    }
    let mediatek = own("mediatek,mt8196-pcie", "\"pcie-mac\", \"b\"", plain);
    assert_eq!(mediatek, Some((String::from("mediatek-gen3"), 1, vec![60])));
}

#[test]
fn each_faulty_devicetree_example_is_reported() {
    for rule in devicetree_rules() {
        let explanation = rule.explanation();
        let [fault, _] = fenced(explanation, "dts")[..] else { panic!("{rule}: a fault, a fix") };
        let found = findings(fault, &known(explanation));
        assert!(found.iter().any(|finding| finding.rule == rule), "{rule}: {found:#?}");
    }
}

#[test]
fn each_fixed_devicetree_example_has_no_findings() {
    for rule in devicetree_rules() {
        let explanation = rule.explanation();
        let [_, mend] = fenced(explanation, "dts")[..] else { panic!("{rule}: a fault, a fix") };
        assert_eq!(findings(mend, &known(explanation)), [], "{rule}");
    }
}

#[test]
fn a_disabled_its_excludes_direct_lpis() {
    let fault = fenced(Rule::DirectLpiWithIts.explanation(), "dts")[0];
    let disabled = format!("&its {{ status = \"disabled\"; }}; {fault}");
    let found = findings(&disabled, &KnownRegisters::default());
    assert!(found.iter().any(|one| one.rule == Rule::DirectLpiWithIts), "{found:#?}");
}

#[test]
fn register_rules_report_nothing_without_known_registers() {
    for rule in devicetree_rules().filter(|rule| rule.explanation().contains("```json")) {
        let fault = fenced(rule.explanation(), "dts")[0];
        assert_eq!(findings(fault, &KnownRegisters::default()), [], "{rule}");
    }
}

#[test]
fn each_rule_explanation_has_a_fault_and_a_fix() {
    for rule in Rule::ALL {
        let explanation = rule.explanation();
        let fault = explanation.find("\n## Fault\n").expect("a fault");
        let mend = explanation.find("\n## Fix\n").expect("a fix");
        assert!(60 < fault && fault < mend, "{rule}");
        assert_eq!(Rule::named(rule.name()), Some(*rule));
    }
}
