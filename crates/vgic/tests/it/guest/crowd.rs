//! Tests for register accesses on a machine with too many mappings to update in a single access.
//! The registers must report that the work is unfinished, and each access that polls for completion
//! must continue the work.

use doorbell_test_support::guest::{self, ITS, Machine, RAM, mapc, mapd, mapti};
use gic_arch::gicr::{Ctlr, Propbaser, Syncr};
use gic_arch::lpi::Config;
use gic_arch::{Priority, RegisterValue, gicr, gits};
use msi_types::{Cpu, Delivery, Kick};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use vgic::its::ItsConfig;
use vgic::{AccessWidth, FaultReason, GuestMemory, Sleep, Vgic, VgicConfig};

const CONFIGURATION: u64 = RAM + 0x3_0000;
const PENDING: u64 = RAM + 0x4_0000;
const EVENTS: u32 = 1 << 16;
const LAST: u32 = EVENTS - 1;
/// LPI of the last event.
const LAST_LPI: u32 = lpi_of(LAST);

/// Returns the LPI of an event. There are fewer LPIs than events, so two events share one.
const fn lpi_of(event: u32) -> u32 {
    8192 + event / 2
}

fn one_vcpu() -> VgicConfig {
    let its = vec![ItsConfig::new(ITS)];
    VgicConfig::new(1)
        .with_lpi_id_bits(Some(16))
        .with_redistributor_invalidation(true)
        .with_its(its)
}

/// Creates a machine with one vCPU, and a device whose events are all mapped.
fn crowded() -> Machine {
    let machine = Machine::running(one_vcpu());
    crowd(&machine);
    machine
}

fn crowd(machine: &Machine) {
    configure(machine, true);
    machine.enable_lpis(16, CONFIGURATION, PENDING);
    machine.start_its();
    machine.run([mapc(0, 0), mapd(1, 16, 0)]);
    machine.run((0..EVENTS).map(|event| mapti(1, event, lpi_of(event), 0)));
}

fn configure(machine: &Machine, enable: bool) {
    let byte = Config::new().with_enable(enable).with_priority(Priority::new(0xa0)).into_bits();
    machine.ram.write(CONFIGURATION, &vec![byte; EVENTS as usize / 2]).unwrap();
}

fn send(machine: &Machine, event: u32) -> Delivery {
    machine.send(1, event)
}

fn read<V: RegisterValue<Raw = u32>>(
    machine: &Machine,
    register: gic_arch::Reg<V, impl Sized>,
) -> V {
    V::from(u32::try_from(machine.read_gicr(0, register)).unwrap())
}

/// Polls until `done` returns `true`, and returns the number of polls before that.
fn polls(mut done: impl FnMut() -> bool) -> u32 {
    (0..1000).find(|_| done()).expect("polling must finish the work")
}

fn disable(machine: &Machine) -> u32 {
    machine.write_gicr(0, gicr::CTLR, Ctlr::new());
    polls(|| !read(machine, gicr::CTLR).rwp())
}

#[test]
fn rwp_is_set_until_the_pending_table_is_written() {
    let machine = crowded();
    assert_eq!(send(&machine, LAST), Delivery::Pending);
    let last = PENDING + u64::from(LAST_LPI) / 8;

    machine.write_gicr(0, gicr::CTLR, Ctlr::new());
    let propbaser = machine.read_gicr(0, gicr::PROPBASER);
    machine.write_gicr(0, gicr::PROPBASER, Propbaser::new());
    machine.write_gicr(0, gicr::CTLR, Ctlr::new().with_enable_lpis(true));

    let ctlr = read(&machine, gicr::CTLR);
    assert!(ctlr.rwp() && !ctlr.enable_lpis());
    assert_eq!(machine.read_gicr(0, gicr::PROPBASER), propbaser);
    assert!(machine.gic.events().count(FaultReason::LpiTablesInUse) >= 2);
    polls(|| !read(&machine, gicr::CTLR).rwp());
    let mut byte = [0];
    machine.ram.read(last, &mut byte).unwrap();
    assert_eq!(byte, [0x80]);
    assert_eq!(send(&machine, LAST), Delivery::Blocked);
}

#[test]
fn a_write_of_enable_lpis_enables_every_lpi_before_it_returns() {
    let mut machine = crowded();
    disable(&machine);
    let first_and_last = [(8192, 1), (LAST_LPI, 0x80)];
    for (lpi, bits) in first_and_last {
        machine.ram.write(PENDING + u64::from(lpi) / 8, &[bits]).unwrap();
    }

    machine.write_gicr(0, gicr::CTLR, Ctlr::new().with_enable_lpis(true));

    assert!(read(&machine, gicr::CTLR).enable_lpis());
    assert_eq!(send(&machine, LAST - 2), Delivery::Pending);
    let mut taken = Vec::new();
    while let intid @ 8192.. = machine.acknowledge(0) {
        taken.push(intid);
        machine.end(0, intid);
    }
    taken.sort_unstable();
    let expected = [8192, LAST_LPI - 1, LAST_LPI].map(u64::from);
    assert_eq!(taken, expected);
}

/// Kick handler that records the values of `GITS_CTLR` and `GICR_CTLR`, and the result of a message
/// for the last event.
#[derive(Default)]
struct KickObserver {
    gic: OnceLock<Weak<Vgic>>,
    seen: Mutex<Vec<(u64, u64, Delivery)>>,
}

impl Kick for KickObserver {
    fn kick(&self, _: Cpu) {
        let Some(gic) = self.gic.get().and_then(Weak::upgrade) else { return };
        let read = |address| gic.read(address, AccessWidth::Word).unwrap();
        let redistributor = gic.config().redistributors[0].base;
        let registers = [ITS, redistributor].map(read);
        self.seen.lock().unwrap().push((registers[0], registers[1], guest::send(&gic, 1, LAST)));
    }
}

fn watched() -> (Machine, Arc<KickObserver>) {
    let looks = Arc::new(KickObserver::default());
    let mut machine = Machine::kicking(one_vcpu(), looks.clone());
    machine.start();
    crowd(&machine);
    looks.gic.set(Arc::downgrade(&machine.gic)).unwrap();
    (machine, looks)
}

#[test]
fn lpis_read_as_disabled_until_all_are_enabled() {
    let (mut machine, looks) = watched();
    disable(&machine);
    machine.ram.write(PENDING + 8192 / 8, &[1]).unwrap();
    assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);

    machine.write_gicr(0, gicr::CTLR, Ctlr::new().with_enable_lpis(true));

    let seen = looks.seen.lock().unwrap().clone();
    assert!(matches!(seen[..], [(_, lpis, Delivery::Blocked)] if lpis & 1 == 0), "{seen:?}");
    assert_eq!(send(&machine, LAST), Delivery::Pending);
}

#[test]
fn an_its_reads_as_disabled_until_it_accepts_messages() {
    let (mut machine, looks) = watched();
    let ctlr = ITS + u64::from(gits::CTLR.offset());
    // The first event is pending and masked. The current configuration of its LPI is read when the
    // ITS is enabled.
    configure(&machine, false);
    machine.write_gicr(0, gicr::INVALLR, 0);
    polls(|| !read::<Syncr>(&machine, gicr::SYNCR).busy());
    assert_eq!(send(&machine, 0), Delivery::Pending);
    machine.write(ctlr, AccessWidth::Word, 0);
    polls(|| machine.read(ctlr, AccessWidth::Word) >> 31 == 1);
    configure(&machine, true);
    assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);

    machine.write(ctlr, AccessWidth::Word, 1);

    let seen = looks.seen.lock().unwrap().clone();
    assert!(matches!(seen[..], [(its, _, Delivery::Blocked)] if its & 1 == 0), "{seen:?}");
    assert_eq!(send(&machine, LAST), Delivery::Pending);
    assert_eq!(machine.read(ctlr, AccessWidth::Word), 1);
}
