//! Tests that each rule has a finding in a state with its fault, and none in the state without the
//! fault.

use super::guest::{
    COLLECTIONS, CONFIG, DEVICE, DEVICES, EVENTS, Guest, ITS, PENDING, QUEUE, SPI, TRANSLATIONS,
};
use super::{of_kvm, of_model, rules};
use crate::snapshot::lint::{self, Rule};
use crate::snapshot::machine::Machine;
use doorbell_test_support::guest::{clear, unmapc};
use gic_arch::{Affinity, IntId, gicd, gicr, gits, icc};
use vgic::its::{ErrorPolicy, ItsConfig};
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::Attribute;
use vgic_kvm::snapshot::{KvmSnapshot, MemoryData, MemoryRange};

fn with_pending() -> Guest {
    let guest = Guest::new();
    (0..EVENTS).for_each(|event| guest.send(event));
    guest
}

/// Changes an attribute's value.
fn set(snapshot: &mut KvmSnapshot, device: KvmDevice, attribute: Attribute, value: u64) {
    let wanted =
        |saved: &&mut vgic_kvm::KvmRegister| (saved.device, saved.attribute) == (device, attribute);
    snapshot.attributes.iter_mut().find(wanted).unwrap().value = value;
}

/// Returns the bytes of the 64-bit word at an address.
fn word(snapshot: &mut KvmSnapshot, address: u64) -> &mut [u8] {
    let range =
        |range: &&mut MemoryRange| (range.address..range.address + range.bytes).contains(&address);
    let range = snapshot.memory.iter_mut().find(range).unwrap();
    let at = address - range.address;
    let data = range
        .data
        .iter_mut()
        .find(|data| (data.at..data.at + data.hex.len() as u64).contains(&at))
        .unwrap();
    let start = usize::try_from(at - data.at).unwrap();
    &mut data.hex[start..start + 8]
}

const CPU_1: Affinity = Affinity::new(0, 0, 0, 1);

type Mutation = fn(&mut KvmSnapshot);

/// Mutations of a snapshot without findings, each with the rules that must have findings.
const MUTATIONS: &[(&[Rule], Mutation)] = &[
    (&[Rule::InterfaceMasked], |snapshot| set_icc(snapshot, icc::PMR.encoding(), 0)),
    (&[Rule::PendingMasked], |snapshot| set_icc(snapshot, icc::PMR.encoding(), 0xa0)),
    (&[Rule::GroupDisabled], |snapshot| set_icc(snapshot, icc::IGRPEN1.encoding(), 0)),
    (&[Rule::GroupDisabled], |snapshot| set_gicd(snapshot, gicd::CTLR.offset(), 0)),
    (&[Rule::StaleActivePriority], |snapshot| set_icc(snapshot, icc::AP1R0.encoding(), 1 << 2)),
    (&[Rule::StaleActivePriority], |snapshot| set_icc(snapshot, icc::AP0R0.encoding(), 1 << 20)),
    // The SPI is active at vCPU 0, and both vCPUs have its priority.
    (&[Rule::StaleActivePriority], |snapshot| {
        set_gicd(snapshot, gicd::ISACTIVER.offset() + 4, 1 << (SPI - 32));
        let (cpu, register) = (Affinity::default(), icc::AP1R0.encoding());
        set(snapshot, KvmDevice::Gic, Attribute::SystemRegister { cpu, register }, 1);
        set_icc(snapshot, register, 1);
    }),
    (&[Rule::PriorityOfLpi], |snapshot| set_icc(snapshot, icc::AP1R0.encoding(), 1 << 20)),
    (&[Rule::RouteToNobody], |snapshot| set_gicd(snapshot, ROUTE, 7)),
    (&[Rule::IdleTarget, Rule::RouteToNobody], |snapshot| {
        snapshot.cpus[1].stopped = Some(true);
        set_gicd(snapshot, ROUTE, 1);
    }),
    (&[Rule::ItsDisabled], |snapshot| {
        let enable = Attribute::Its { offset: gits::CTLR.offset().into() };
        set(snapshot, KvmDevice::Its(0), enable, 0);
    }),
    (&[Rule::SwappedVcpus], |snapshot| {
        snapshot.cpus[0].number = 1;
        snapshot.cpus[1].number = 0;
    }),
    (&[Rule::SavedWhileRunning], |snapshot| word(snapshot, TRANSLATIONS + 24).fill(0)),
    (&[Rule::SavedWhileRunning], |snapshot| word(snapshot, TRANSLATIONS + 8)[0] = 0),
    (&[Rule::SavedWhileRunning], |snapshot| word(snapshot, DEVICES + 64).fill(0)),
    // The last MAPTI becomes a DISCARD.
    (&[Rule::SavedWhileRunning], |snapshot| word(snapshot, QUEUE + 0xc0)[0] = 0xf),
    (&[Rule::ItsWithoutMappings], |snapshot| {
        word(snapshot, DEVICES + 64).fill(0);
        word(snapshot, COLLECTIONS).fill(0);
    }),
    (&[Rule::IgnoredAttribute, Rule::RefusedAttribute], |snapshot| snapshot.interrupts = 32),
    (&[Rule::LpiBeyondTable], |snapshot| {
        for saved in &mut snapshot.attributes {
            let at = gicr::PROPBASER.offset();
            if matches!(saved.attribute, Attribute::Redistributor { offset, .. } if offset == at) {
                saved.value = CONFIG | 0xc;
            }
        }
    }),
    (&[Rule::ConfigurationLost], |snapshot| word(snapshot, CONFIG).fill(0)),
];

/// Offset of the SPI's route.
const ROUTE: u32 = gicd::irouter(IntId::new(SPI)).unwrap().offset();

pub(super) fn set_icc(snapshot: &mut KvmSnapshot, register: icc::SysRegEncoding, value: u64) {
    let attribute = Attribute::SystemRegister { cpu: CPU_1, register };
    set(snapshot, KvmDevice::Gic, attribute, value);
}

fn set_gicd(snapshot: &mut KvmSnapshot, offset: u32, value: u64) {
    set(snapshot, KvmDevice::Gic, Attribute::Distributor { offset }, value);
}

#[test]
fn each_mutation_triggers_only_its_expected_rules() {
    let whole = with_pending().kvm();
    assert_eq!(rules(&of_kvm(&whole)), []);
    for (number, (expected, mutate)) in MUTATIONS.iter().enumerate() {
        let mut mutated = whole.clone();
        mutate(&mut mutated);
        let findings = lint::check(&of_kvm(&mutated));
        let mut found: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
        found.dedup();
        assert_eq!(found, *expected, "mutation {number}: {findings:#?}");
    }
}

#[test]
fn complete_states_have_no_findings() {
    let mut guest = with_pending();
    assert_eq!(rules(&of_model(&guest.save())), []);
    let mut other = Guest::with(Guest::config_with(ItsConfig::new(ITS)));
    assert_eq!(rules(&of_model(&other.save())), []);
}

/// A guest with a fault, and the only finding: its rule, its place and a part of its message.
type Scene = (fn() -> Guest, Rule, &'static str, &'static str);

const SCENES: &[Scene] = &[
    (
        || {
            let mut guest = Guest::off(Guest::bare_config());
            guest.start_distributor();
            (0..2).for_each(|cpu| guest.start_cpu(cpu, PENDING));
            guest.start_its();
            guest
        },
        Rule::SharedPendingTable,
        "vCPUs 0, 1",
        "0x40060000",
    ),
    (
        || {
            let guest = Guest::new();
            guest.set_enable_lpis(1, false);
            guest
        },
        Rule::IdleTarget,
        "its@8080000, collection 1",
        "has its LPIs disabled (GICR_CTLR.EnableLPIs)",
    ),
    (
        || {
            let guest = Guest::new();
            guest.run([unmapc(1)]);
            guest
        },
        Rule::UnmappedCollection,
        "its@8080000, collection 1",
        "2 events use the collection, which is not mapped",
    ),
    (
        || {
            let guest = Guest::new();
            guest.map_event(5, 8193, 1);
            guest
        },
        Rule::IntIdMappedTwice,
        "LPI 8193",
        "it is the INTID of its@8080000 device 0x8 event 0x1, its@8080000 device 0x8 event 0x5",
    ),
    (
        || {
            let guest = with_pending();
            guest.configure(2, 0xa2);
            guest
        },
        Rule::PendingLpiDisabled,
        "its@8080000, device 0x8 event 0x2",
        "LPI 8194 is pending, but its configuration byte is 0xa2: disabled",
    ),
];

#[test]
fn a_guests_faults_are_found_in_both_origins() {
    for (guest, rule, place, message) in SCENES {
        let mut guest = guest();
        is_only(&of_model(&guest.save()), *rule, place, message);
        is_only(&of_kvm(&guest.kvm()), *rule, place, message);
    }
}

/// Asserts that a machine has only one finding.
#[track_caller]
fn is_only(machine: &Machine, rule: Rule, place: &str, message: &str) {
    let findings = lint::check(machine);
    let [found] = findings.as_slice() else { panic!("{findings:#?}") };
    assert_eq!((found.rule, found.place.as_str()), (rule, place));
    assert!(found.message.contains(message), "{}", found.message);
}

/// Returns a machine's first finding of a rule.
#[track_caller]
fn first_of(machine: &Machine, rule: Rule) -> lint::Finding {
    lint::check(machine).into_iter().find(|found| found.rule == rule).unwrap()
}

#[test]
fn missing_registers_are_found() {
    let mut snapshot = with_pending().kvm();
    let offset = gicr::PENDBASER.offset();
    let lost = Attribute::Redistributor { cpu: CPU_1, offset };
    snapshot.attributes.retain(|saved| saved.attribute != lost);
    let missing = first_of(&of_kvm(&snapshot), Rule::MissingAttribute);
    assert_eq!(missing.place, "gic: redistributor register 0x78 of CPU 0.0.0.1");
}

#[test]
fn refused_registers_are_found() {
    let mut snapshot = with_pending().kvm();
    set_icc(&mut snapshot, icc::SRE.encoding(), 0);
    let place = "gic: system register 0xc665 of CPU 0.0.0.1";
    let message = "KVM refuses the value 0x0 with error 22: the value is invalid (EINVAL)";
    is_only(&of_kvm(&snapshot), Rule::RefusedAttribute, place, message);
}

#[test]
fn states_that_the_model_refuses_are_found() {
    let mut state = with_pending().save();
    state.its[0].devices[0].event_bits = 40;
    let refused = first_of(&of_model(&state), Rule::NotRestorable);
    assert!(refused.message.contains("device 0x8"), "{}", refused.message);
}

#[test]
fn overlapping_pending_tables_are_found() {
    let mut state = with_pending().save();
    let table = state.cpus[0].redistributor.pendbaser;
    for cpu in &mut state.cpus {
        cpu.redistributor.propbaser |= 0x13;
    }
    state.cpus[1].redistributor.pendbaser = table + 0x1_0000;
    first_of(&of_model(&state), Rule::SharedPendingTable);
}

#[test]
fn tables_outside_of_the_snapshot_are_found() {
    for (address, place, name) in [
        (DEVICES, "its@8080000", "the device table"),
        (COLLECTIONS, "its@8080000", "the collection table"),
        (TRANSLATIONS, "its@8080000, device 0x8", "the interrupt translation table"),
        (CONFIG, "the redistributors", "the configuration table"),
        (PENDING, "vCPU 0", "the pending table"),
    ] {
        let mut snapshot = with_pending().kvm();
        without_page(&mut snapshot, address);
        let machine = of_kvm(&snapshot);
        let refused = first_of(&machine, Rule::TablesRefused);
        assert!(refused.message.contains("(EFAULT)"), "{}", refused.message);
        let found = first_of(&machine, Rule::TableNotIncluded);
        assert_eq!(found.place, place);
        assert!(found.message.starts_with(name), "{}", found.message);
        let missing = format!("memory from {address:#x} to {:#x} is", address + 0x1000);
        let all = address == TRANSLATIONS || address == PENDING;
        assert!(all || found.message.contains(&missing), "{}", found.message);
    }
}

/// Removes a page from the snapshot's memory.
fn without_page(snapshot: &mut KvmSnapshot, page: u64) {
    let mut kept = Vec::new();
    for range in &snapshot.memory {
        let end = range.address + range.bytes;
        for part in [range.address..page.min(end), (page + 0x1000).max(range.address)..end] {
            let bytes =
                range.data.iter().flat_map(|data| (range.address + data.at..).zip(&data.hex));
            let bytes = bytes.filter(|(address, _)| part.contains(address));
            let bytes = bytes.map(|(at, byte)| MemoryData::new(at - part.start, vec![*byte]));
            let mut part_kept = MemoryRange::new(part.start, part.end.saturating_sub(part.start));
            part_kept.data = bytes.collect();
            kept.extend((part_kept.bytes > 0).then_some(part_kept));
        }
    }
    snapshot.memory = kept;
}

#[test]
fn damaged_tables_are_found() {
    let mut snapshot = with_pending().kvm();
    word(&mut snapshot, TRANSLATIONS)[2..4].copy_from_slice(&[1, 0]);
    let refused = first_of(&of_kvm(&snapshot), Rule::TablesRefused);
    assert_eq!(refused.place, "its@8080000");
    let entry = "EventID 0x0 in the table of DeviceID 0x8: INTID 1 is not a supported LPI";
    assert!(refused.message.ends_with(entry), "{}", refused.message);
}

#[test]
fn an_enabled_its_without_a_table_is_found() {
    let mut guest = Guest::off(Guest::config_with(ItsConfig::new(ITS)));
    guest.start_queue();
    let findings = lint::check(&of_model(&guest.save()));
    assert!(findings[0].message.contains("GITS_BASER0"), "{findings:?}");
    assert!(findings.iter().all(|found| found.rule == Rule::ItsWithoutTable), "{findings:?}");

    let mut snapshot = with_pending().kvm();
    let offset = gits::BASER.get(1).unwrap().offset().into();
    set(&mut snapshot, KvmDevice::Its(0), Attribute::Its { offset }, 0);
    first_of(&of_kvm(&snapshot), Rule::ItsWithoutTable);
}

#[test]
fn collections_of_absent_vcpus_are_found() {
    let mut snapshot = with_pending().kvm();
    word(&mut snapshot, COLLECTIONS)[2] = 9;
    let found = first_of(&of_kvm(&snapshot), Rule::CollectionTarget);
    assert_eq!(found.place, "its@8080000, collection 0");
    assert!(found.message.contains("vcpu_id 9, and none of the 2 vCPUs"), "{}", found.message);
}

#[test]
fn collections_at_a_vcpu_that_is_off_are_found() {
    let mut snapshot = Guest::new().kvm();
    snapshot.cpus[1].stopped = Some(true);
    let message = "2 events use the collection, and vCPU 1 is off (KVM_MP_STATE_STOPPED)";
    is_only(&of_kvm(&snapshot), Rule::IdleTarget, "its@8080000, collection 1", message);
    let mut guest = Guest::with(Guest::config_with(ItsConfig::new(ITS)));
    guest.write_gicr(1, gicr::WAKER, gicr::Waker::from(2));
    let message = "vCPU 1 is asleep (GICR_WAKER.ProcessorSleep)";
    is_only(&of_model(&guest.save()), Rule::IdleTarget, "its@8080000, collection 1", message);
}

#[test]
fn pending_lpis_beyond_the_tables_are_found() {
    let mut state = with_pending().save();
    state.its[0].devices[0].events[3].intid = IntId::new(0x4000);
    let message = "it exceeds the 14 bits of GICR_PROPBASER.IDbits";
    let place = "its@8080000, collection 1";
    is_only(&of_model(&state), Rule::LpiBeyondTable, place, message);
}

#[test]
fn pending_bits_without_events_are_found() {
    let mut snapshot = with_pending().kvm();
    word(&mut snapshot, PENDING + 0x1_0000 + 0x400)[0] |= 1 << 5;
    let message = "the bit of LPI 8197";
    is_only(&of_kvm(&snapshot), Rule::PendingWithoutEvent, "vCPU 1", message);
}

#[test]
fn stalled_queues_are_found() {
    let config = ItsConfig::new(ITS).with_error_policy(ErrorPolicy::Stall);
    let mut guest = Guest::with(Guest::config_with(config));
    guest.queue([clear(DEVICE.get(), 7)]);
    let message = "GITS_CREADR is 0xe0 and GITS_CWRITER is 0x100, and the queue is stalled";
    is_only(&of_model(&guest.save()), Rule::UnprocessedCommands, "its@8080000", message);
}

#[test]
fn active_interrupts_without_an_active_priority_are_found() {
    let mut guest = Guest::new();
    guest.set_bit(gicd::ISPENDR, SPI);
    assert_eq!(guest.acknowledge(0), u64::from(SPI));
    assert_eq!(rules(&of_model(&guest.save())), []);
    let mut snapshot = guest.kvm();
    assert_eq!(rules(&of_kvm(&snapshot)), []);
    let (cpu, register) = (Affinity::default(), icc::AP1R0.encoding());
    set(&mut snapshot, KvmDevice::Gic, Attribute::SystemRegister { cpu, register }, 0);
    let message = "SPI 40 is active at vCPU 0";
    is_only(&of_kvm(&snapshot), Rule::ActiveWithoutPriority, "vCPU 0", message);
}

#[test]
fn findings_beyond_the_limit_of_a_rule_are_counted() {
    let mut guest = Guest::new();
    let mut snapshot = guest.kvm();
    snapshot.attributes.retain(|saved| !matches!(saved.attribute, Attribute::Distributor { .. }));
    let findings = lint::check(&of_kvm(&snapshot));
    let missing: Vec<_> =
        findings.iter().filter(|found| found.rule == Rule::MissingAttribute).collect();
    assert_eq!(missing.len(), 16);
    assert!(missing[15].message.ends_with("more findings of this rule)"), "{:?}", missing[15]);
}
