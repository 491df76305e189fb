//! Machines on KVM that are restored from the state of another machine, or refuse it. A view of the
//! model stands in for KVM.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vgic_monitor::irq_routing::irqfd::EventfdPoller;
use vgic_monitor::irq_routing::msix::MsixTable;
use vgic_monitor::irq_routing::{GsiSpace, Inputs, Router, Sender};
use vgic_monitor::machine_state::{KvmController, MachineState, Parts};
use vgic_monitor::msi_types::{DeviceId, Level, Line, SetLine};
use vgic_monitor::vgic::saved_state::SavedState;
use vgic_monitor::vgic::{GuestMemory, MemoryFault, Vcpu, Vgic, VgicConfig};
use vgic_monitor::vgic_kvm::abi::{Attribute, Errno};
use vgic_monitor::vgic_kvm::snapshot::{KvmAttributes, KvmSnapshot, SnapshotCpu};
use vgic_monitor::vgic_kvm::{KvmDevice, KvmView, kvm_config, kvm_its_config};

const LIMIT: Duration = Duration::from_secs(20);

/// Guest memory that contains zeros where nothing was written.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<u64, u8>>);

impl GuestMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let memory = self.0.lock().unwrap();
        let byte = |at| memory.get(&at).copied().unwrap_or(0);
        (address..).zip(bytes).for_each(|(at, place)| *place = byte(at));
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.0.lock().unwrap().extend((address..).zip(bytes.iter().copied()));
        Ok(())
    }
}

/// KVM, which notes the number of eventfds that were served before the first access, and the number
/// of writes.
struct Kvm<'v> {
    view: KvmView<'v>,
    served: Arc<AtomicUsize>,
    served_before: Option<usize>,
    writes: usize,
}

impl KvmAttributes for Kvm<'_> {
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno> {
        self.view.get(device, attribute)
    }

    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno> {
        self.served_before.get_or_insert(self.served.load(Ordering::SeqCst));
        self.writes += 1;
        self.view.set(device, attribute, value)
    }
}

fn config() -> VgicConfig {
    kvm_config(2, 96).with_its(vec![kvm_its_config(0x0808_0000)])
}

/// Returns the state of a machine whose SPI 40 has this level.
fn state(level: Level) -> (Arc<Vgic>, SavedState) {
    let (gic, mut vcpus) =
        Vgic::new(config(), Arc::new(Memory::default()), Arc::new(|_| ())).unwrap();
    gic.set_line(Line::Spi(40), level);
    let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
    let saved = gic.save().unwrap();
    (gic, saved)
}

/// Calls `act` with KVM in this state, and with a device's table.
fn with_kvm<R>(
    state: (Arc<Vgic>, SavedState),
    vectors: u16,
    act: impl FnOnce(&mut Kvm<'_>, &Memory, &MsixTable) -> R,
) -> R {
    let (config, memory, served) = (config(), Memory::default(), Arc::default());
    let view = KvmView::new(&config, state.1, &memory).unwrap();
    let router = Router::new(GsiSpace::default(), Inputs::new(state.0)).unwrap();
    let sender = Sender::Device(DeviceId::new(8));
    let table = MsixTable::new(vectors, sender, Arc::new(router)).unwrap();
    act(&mut Kvm { view, served, served_before: None, writes: 0 }, &memory, &table)
}

fn cpus() -> Vec<SnapshotCpu> {
    let cpus = config().cpus;
    cpus.iter().map(|cpu| SnapshotCpu::new(cpu.affinity, cpu.processor_number, None)).collect()
}

fn save(kvm: &mut Kvm<'_>, memory: &Memory, table: &MsixTable) -> MachineState<KvmSnapshot> {
    let controller = KvmController::new(kvm, cpus(), 1, memory);
    Parts::on_kvm(controller).with_function("disk", table).save(LIMIT).unwrap()
}

/// Returns the state of a machine whose SPI is high, and whose device has a pending vector.
fn used() -> MachineState<KvmSnapshot> {
    with_kvm(state(Level::High), 3, |kvm, memory, table| {
        table.write_capability(3, &[0x80]);
        table.signal(1);
        save(kvm, memory, table)
    })
}

#[test]
fn a_restore_on_kvm_reproduces_the_saved_state() {
    let used = used();
    let json = serde_json::to_string(&used).unwrap();
    with_kvm(state(Level::Low), 3, |kvm, memory, table| {
        assert_ne!(save(kvm, memory, table), used);
        let controller = KvmController::new(kvm, cpus(), 1, memory);
        let mut parts = Parts::on_kvm(controller).with_function("disk", table);
        let read = serde_json::from_str(&json).unwrap();
        assert!(parts.check(&read).unwrap().is_empty());
        parts.restore(&read).unwrap();
        assert_eq!(save(kvm, memory, table), used);
    });
}

#[test]
fn refused_restore_on_kvm_writes_nothing() {
    let mut incomplete = used();
    incomplete.gic.attributes.pop();
    let mut other = used();
    other.gic.cpus.pop();
    for (vectors, state_of, reason) in [
        (4, used(), "function \"disk\""),
        (3, incomplete, "ENXIO"),
        (3, other, "the state has 1 vCPUs and 1 ITSes, but the VM has 2 and 1"),
    ] {
        with_kvm(state(Level::Low), vectors, |kvm, memory, table| {
            let mut parts = Parts::on_kvm(KvmController::new(kvm, cpus(), 1, memory))
                .with_function("disk", table);
            assert!(parts.check(&state_of).is_err());
            let refused = parts.restore(&state_of).unwrap_err();
            assert!(refused.to_string().contains(reason), "{refused}");
            assert_eq!(kvm.writes, 0);
            assert!(table.save().pending.is_empty());
        });
    }
}

#[test]
fn eventfds_are_served_before_kvm_is_saved() {
    with_kvm(state(Level::Low), 1, |kvm, memory, table| {
        let poller = EventfdPoller::new().unwrap();
        let flags = rustix::event::EventfdFlags::NONBLOCK;
        let eventfd = rustix::event::eventfd(1, flags).unwrap();
        let served = kvm.served.clone();
        let count = move || _ = served.fetch_add(1, Ordering::SeqCst);
        let _polled = poller.add(eventfd, count).unwrap();
        let controller = KvmController::new(kvm, cpus(), 1, memory);
        let mut parts = Parts::on_kvm(controller).with_function("disk", table);
        parts = parts.with_poller(&poller);
        parts.save(LIMIT).unwrap();
        assert_eq!(kvm.served_before, Some(1));
    });
}
