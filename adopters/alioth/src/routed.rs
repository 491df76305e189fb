//! Alioth's KVM backend with the routes of `irq-routing` in place of its own. The only change is
//! how eventfds are routed to MSIs: through an IOMMU, which Alioth does not have itself.

mod irqfd;

use alioth::hv::{Error, Hypervisor, Kvm, Result, Vm, VmConfig};
use irq_routing::irqfd::{EventfdPoller, IrqfdError, IrqfdThread};
use irq_routing::kvm::{KvmConfig, KvmRouter, MsiIrqfdSet};
use irq_routing::msi_types::DeviceId;
use irq_routing::{Access, Invalidation, Routing, TranslateMsi};
use irqfd::Sender;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

type AliothVm = <Kvm as Hypervisor>::Vm;

/// Routing configuration. The first 32 GSIs are reserved for pins: SPIs, of which Alioth uses one.
const CONFIG: KvmConfig = KvmConfig::new(32);
/// KVM with the routes of `irq-routing`.
pub struct Routed(Kvm);

impl Routed {
    pub fn new(kvm: Kvm) -> Self {
        Self(kvm)
    }
}

impl Hypervisor for Routed {
    type Vm = RoutedVm;

    fn create_vm(&self, config: &VmConfig) -> Result<RoutedVm> {
        let vm = self.0.create_vm(config)?;
        let router = vm.vm.fd.try_clone().and_then(|machine| KvmRouter::new(machine, CONFIG));
        let router = router.map_err(|error| irqfd::failed("routes", error))?;
        let irqfds = serve(router).map_err(|error| irqfd::failed("eventfds", error))?;
        let (irqfds, serving) = irqfds;
        Ok(RoutedVm { irqfds: Arc::new(irqfds), _serving: serving, vm })
    }
}

/// Time between two invalidations of all translations.
const REMAPPED: Duration = Duration::from_millis(10);

/// Number of messages that the IOMMU has translated for the routes.
static TRANSLATED: AtomicU64 = AtomicU64::new(0);
/// Number of invalidations that failed.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Prints the numbers for the suite.
pub fn report() {
    let [translated, failed] = [&TRANSLATED, &FAILED].map(|count| count.load(Ordering::Relaxed));
    println!("host: translated {translated}, {failed} invalidations failed");
}

/// An IOMMU that maps each address to itself.
struct Identity;

impl TranslateMsi for Identity {
    fn translate(&self, _: DeviceId, address: u64, _: Access) -> Option<u64> {
        TRANSLATED.fetch_add(1, Ordering::Relaxed);
        Some(address)
    }
}

/// Invalidates all translations again and again, until the machine is dropped. A message must
/// arrive whether the kernel or the poller serves its eventfd meanwhile, and no table may be
/// written for a translation that stays the same.
fn invalidate(router: &Weak<KvmRouter>) {
    while let Some(router) = router.upgrade() {
        if let Err(error) = router.invalidate(&Invalidation::all()) {
            log::error!("the routes cannot be translated: {error}");
            FAILED.fetch_add(1, Ordering::Relaxed);
        }
        drop(router);
        thread::sleep(REMAPPED);
    }
}

/// Creates the eventfds for a machine's routes, and a thread that serves them until the kernel
/// does.
fn serve(router: KvmRouter) -> Result<(MsiIrqfdSet, IrqfdThread), IrqfdError> {
    let router = Arc::new(router.with_translator(Arc::new(Identity)));
    let (poller, remapped) = (EventfdPoller::new()?, Arc::downgrade(&router));
    thread::spawn(move || invalidate(&remapped));
    Ok((MsiIrqfdSet::new(router, poller.clone())?, poller.spawn()?))
}

/// An Alioth VM and its eventfds.
pub struct RoutedVm {
    irqfds: Arc<MsiIrqfdSet>,
    _serving: IrqfdThread,
    vm: AliothVm,
}

impl Vm for RoutedVm {
    type Vcpu = <AliothVm as Vm>::Vcpu;
    type Memory = <AliothVm as Vm>::Memory;
    type MsiSender = Sender<<AliothVm as Vm>::MsiSender>;
    type IoeventFdRegistry = <AliothVm as Vm>::IoeventFdRegistry;
    type IrqSender = <AliothVm as Vm>::IrqSender;
    type GicV2 = <AliothVm as Vm>::GicV2;
    type GicV3 = <AliothVm as Vm>::GicV3;
    type GicV2m = <AliothVm as Vm>::GicV2m;
    type Its = <AliothVm as Vm>::Its;

    fn create_msi_sender(&self, device: u32) -> Result<Self::MsiSender> {
        let sender = irq_routing::Sender::Device(DeviceId::new(device));
        Ok(Sender::new(self.vm.create_msi_sender(device)?, sender, self.irqfds.clone()))
    }

    fn create_vcpu(&self, index: u16, identity: u64) -> Result<Self::Vcpu, Error> {
        self.vm.create_vcpu(index, identity)
    }

    fn create_vm_memory(&mut self) -> Result<Self::Memory, Error> {
        self.vm.create_vm_memory()
    }

    fn create_ioeventfd_registry(&self) -> Result<Self::IoeventFdRegistry> {
        self.vm.create_ioeventfd_registry()
    }

    fn stop_vcpu<T>(&self, identity: u64, handle: &JoinHandle<T>) -> Result<(), Error> {
        self.vm.stop_vcpu(identity, handle)
    }

    fn create_irq_sender(&self, pin: u8) -> Result<Self::IrqSender, Error> {
        self.vm.create_irq_sender(pin)
    }

    fn create_gic_v2(&self, distributor: u64, cpu_interface: u64) -> Result<Self::GicV2> {
        self.vm.create_gic_v2(distributor, cpu_interface)
    }

    fn create_gic_v3(&self, distributor: u64, first: u64, count: u16) -> Result<Self::GicV3> {
        self.vm.create_gic_v3(distributor, first, count)
    }

    fn create_gic_v2m(&self, base: u64) -> Result<Self::GicV2m> {
        self.vm.create_gic_v2m(base)
    }

    fn create_its(&self, base: u64) -> Result<Self::Its> {
        self.vm.create_its(base)
    }
}
