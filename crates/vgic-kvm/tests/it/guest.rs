//! Tests that convert saved states to KVM's format and back. A guest creates the states with
//! register accesses and commands.

use doorbell_test_support::guest::{ITS, Machine, mapc, mapd, mapti, movi, ram};
use gic_arch::{gicd, icc};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use vgic::{CpuConfig, GuestMemory, VmMemory};
use vgic_kvm::snapshot::{KvmSnapshot, SnapshotCpu};
use vgic_kvm::{KvmRegister, KvmView, LeftOut, kvm_config, kvm_its_config};

/// Number of CPUs. The guest never provides LPI tables for the last CPU.
const CPUS: u16 = 3;
/// Size of memory, which starts at address 0. A `GICR_PENDBASER` that was never written therefore
/// points to memory.
pub(crate) const RAM_BYTES: usize = 1 << 20;
const QUEUE: u64 = 0x1_0000;
pub(crate) const DEVICES: u64 = 0x2_0000;
const COLLECTIONS: u64 = 0x3_0000;
pub(crate) const CONFIG: u64 = 0x4_0000;
const PENDING: u64 = 0x6_0000;
pub(crate) const TRANSLATIONS: u64 = 0xa_0000;
/// Size of a pending table for INTIDs of 14 bits.
const PENDING_BYTES: u64 = 2 << 10;
/// LPIs to which the device's events are mapped. The last LPI is beyond the LPI tables.
const LPIS: [u32; 6] = [8192, 8193, 8199, 8200, 16383, 16384];

#[derive(Clone, Copy, Debug)]
enum Step {
    Send { event: u32 },
    Enable { cpu: usize, on: bool },
    Move { event: u32, collection: u16 },
    Retarget { collection: u16, cpu: u16 },
    Take { cpu: usize },
}

/// Generates steps that move events among the first `cpus` CPUs.
fn steps(cpus: u16) -> impl Strategy<Value = Vec<Step>> {
    let event = || 0..u32::try_from(LPIS.len()).unwrap();
    let cpu = move || 0..cpus;
    let step = prop_oneof![
        6 => event().prop_map(|event| Step::Send { event }),
        4 => (0..2_usize, any::<bool>()).prop_map(|(cpu, on)| Step::Enable { cpu, on }),
        2 => (event(), cpu()).prop_map(|(event, collection)| Step::Move { event, collection }),
        1 => (cpu(), cpu()).prop_map(|(collection, cpu)| Step::Retarget { collection, cpu }),
        1 => (0..2_usize).prop_map(|cpu| Step::Take { cpu }),
    ];
    vec(step, 0..40)
}

pub(crate) struct Guest {
    machine: Machine,
    /// Acknowledged LPIs.
    taken: BTreeSet<u64>,
    /// Table contents that the last save left out.
    left_out: LeftOut,
}

impl Deref for Guest {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }
}

impl Guest {
    /// Creates a guest that has mapped every event to collection 0, and collection n to CPU n.
    fn new() -> Self {
        let config = kvm_config(CPUS, 64).with_its(vec![kvm_its_config(ITS)]);
        let ram = Arc::new(VmMemory(ram(0, RAM_BYTES)));
        ram.write(CONFIG, &[0xa1; 0x2000]).unwrap();
        let machine = Machine { queue: QUEUE, ..Machine::over(config, ram) };
        let mut guest = Self { machine, taken: BTreeSet::new(), left_out: LeftOut::default() };
        guest.start_cpus();
        guest.start_its();
        guest.run((0..CPUS).map(|cpu| mapc(cpu, cpu)));
        guest.run([mapd(1, 4, TRANSLATIONS)]);
        guest.run((0..).zip(LPIS).map(|(event, intid)| mapti(1, event, intid, 0)));
        guest
    }

    /// Creates a guest and applies these steps.
    fn after(steps: &[Step]) -> Self {
        let mut guest = Self::new();
        for step in steps {
            guest.apply(*step);
        }
        guest
    }

    /// Creates a guest whose first two CPUs have pending LPIs.
    pub(crate) fn after_messages() -> Self {
        let on = |cpu| Step::Enable { cpu, on: true };
        let moved = Step::Move { event: 1, collection: 1 };
        let [first, second] = [0, 1].map(|event| Step::Send { event });
        Self::after(&[on(0), on(1), moved, first, second])
    }

    /// Saves the machine, and takes a snapshot of its state in KVM's format.
    pub(crate) fn snapshot(mut self) -> KvmSnapshot {
        let saved = self.machine.save();
        let mut view = KvmView::new(self.gic.config(), saved, &*self.ram).unwrap();
        KvmSnapshot::take(&mut view, self.cpus(), 1, &*self.ram).unwrap()
    }

    pub(crate) fn cpus(&self) -> Vec<SnapshotCpu> {
        let cpu = |cpu: &CpuConfig| SnapshotCpu::new(cpu.affinity, cpu.processor_number, None);
        self.gic.config().cpus.iter().map(cpu).collect()
    }

    fn start_cpus(&mut self) {
        self.write_gicd(gicd::CTLR, gicd::Ctlr::from(2));
        for cpu in 0..usize::from(CPUS) {
            self.msr(cpu, icc::PMR.encoding(), 0xff);
            self.msr(cpu, icc::IGRPEN1.encoding(), 1);
        }
        (0..2).for_each(|cpu| self.provide_lpi_tables(cpu, 14, CONFIG, pending_table(cpu)));
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Send { event } => {
                self.send(1, event);
            }
            Step::Enable { cpu, on } => self.set_enable_lpis(cpu, on),
            Step::Move { event, collection } => self.run([movi(1, event, collection)]),
            Step::Retarget { collection, cpu } => self.run([mapc(collection, cpu)]),
            Step::Take { cpu } => {
                self.take(cpu);
            }
        }
    }

    /// Acknowledges and ends an interrupt. Returns `true` if one was pending.
    fn take(&mut self, cpu: usize) -> bool {
        let intid = self.handle(cpu);
        let is_pending = intid != 1023;
        self.taken.extend(is_pending.then_some(intid));
        is_pending
    }

    /// Enables LPIs on every CPU and takes all pending ones. Returns all LPIs that the guest has
    /// acknowledged so far.
    fn finish(mut self) -> BTreeSet<u64> {
        for cpu in 0..2 {
            self.set_enable_lpis(cpu, true);
            while self.take(cpu) {}
        }
        self.taken
    }

    /// Saves in KVM's format.
    fn save(&mut self) -> Vec<KvmRegister> {
        let saved = self.machine.save();
        let mut view = KvmView::new(self.gic.config(), saved, &*self.ram).unwrap();
        let registers = view.save().unwrap();
        self.left_out = view.left_out();
        registers
    }

    /// Converts the state back from KVM's format and restores it into a new machine, which replaces
    /// the old one.
    fn moved(mut self) -> Self {
        let registers = self.save();
        let mut machine = self.successor();
        let fresh = machine.save();
        let mut view = KvmView::new(self.gic.config(), fresh, &*self.ram).unwrap();
        view.load(&registers).unwrap();
        assert!(view.left_out().is_empty(), "{}", view.left_out());
        machine.restore(&view.into_state());
        Self { machine, ..self }
    }

    /// Returns the contents of memory, with the guest's tables replaced by zeros.
    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; RAM_BYTES];
        self.ram.read(0, &mut bytes).unwrap();
        let pending = [0, 1].map(|cpu| (pending_table(cpu), PENDING_BYTES));
        let tables = [(DEVICES, 0x1_0000), (COLLECTIONS, 0x1_0000), (TRANSLATIONS, 16 * 8)];
        for (table, size) in pending.into_iter().chain(tables) {
            let table = usize::try_from(table).unwrap();
            bytes[table..table + usize::try_from(size).unwrap()].fill(0);
        }
        bytes
    }
}

fn pending_table(cpu: usize) -> u64 {
    PENDING + 0x1_0000 * cpu as u64
}

/// Fills memory after the pending tables and at address 0 with ones, so that the test detects
/// writes outside the tables.
fn fill(guest: &Guest) {
    let bytes = vec![0xff; 0x1_0000 - 2048];
    for table in [0, 1].map(pending_table) {
        guest.ram.write(table + PENDING_BYTES, &bytes).unwrap();
    }
    guest.ram.write(0, &bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The test compares the sets of acknowledged LPIs instead of their counts, because an LPI that
    /// is pending in the table of a disabled redistributor becomes pending with its event, and
    /// coalesces with later messages.
    #[test]
    fn a_migrated_guest_acknowledges_the_same_lpis(before in steps(2), after in steps(2)) {
        let (mut stayed, mut moved) = (Guest::after(&before), Guest::after(&before).moved());
        prop_assert_eq!(moved.left_out, LeftOut::default());
        for step in after {
            stayed.apply(step);
            moved.apply(step);
        }
        prop_assert_eq!(moved.finish(), stayed.finish());
    }

    #[test]
    fn an_abandoned_save_loses_no_lpi(before in steps(CPUS)) {
        let mut saved = Guest::after(&before);
        saved.save();
        prop_assert!(saved.finish().is_superset(&Guest::after(&before).finish()));
    }

    #[test]
    fn migration_writes_no_memory_outside_the_tables(before in steps(CPUS)) {
        let guest = Guest::after(&before);
        fill(&guest);
        let memory = guest.memory();
        prop_assert!(guest.moved().memory() == memory);
    }
}

#[test]
fn an_lpi_pending_when_lpis_are_disabled_survives_migration() {
    let steps = [
        Step::Enable { cpu: 0, on: true },
        Step::Send { event: 0 },
        Step::Enable { cpu: 0, on: false },
    ];
    assert_eq!(Guest::after(&steps).moved().finish(), BTreeSet::from([8192]));
}

#[test]
fn an_lpi_at_a_cpu_without_tables_does_not_block_migration() {
    let steps = [
        Step::Enable { cpu: 0, on: true },
        Step::Send { event: 0 },
        Step::Retarget { collection: 0, cpu: 2 },
        Step::Move { event: 0, collection: 2 },
    ];
    let guest = Guest::after(&steps);
    fill(&guest);
    let memory = guest.memory();
    let moved = guest.moved();
    assert!(moved.memory() == memory);
    assert_eq!((moved.left_out.pending_bits, moved.left_out.faults), (1, 0));
}
