//! Alioth's KVM backend with a different implementation of routes. Only the routing of MSIs from
//! eventfds is changed.

mod irqfd;

use alioth::arch::cpuid::CpuidIn;
use alioth::arch::sev::{SevPolicy, SnpPageType, SnpPolicy};
use alioth::arch::tdx::TdAttr;
use alioth::hv::{Coco, Error, Hypervisor, Kvm, Result, Vm, VmConfig};
use irq_routing::irqfd::{EventfdPoller, IrqfdError, IrqfdThread};
use irq_routing::kvm::{ApicIds, KvmConfig, KvmRouter, MsiIrqfdSet};
use irqfd::Sender;
use std::arch::x86_64::CpuidResult;
use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

type AliothVm = <Kvm as Hypervisor>::Vm;

/// The I/O APIC's pins precede the first GSI of an MSI.
const PINS: u32 = 24;

/// KVM, with the routes of `irq-routing`.
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
        let config = KvmConfig::new(PINS).with_apic_ids(ApicIds::Extended);
        let router = vm.vm.fd.try_clone().and_then(|machine| KvmRouter::new(machine, config));
        let router = router.map_err(|error| irqfd::failed("routes", error))?;
        let irqfds = serve(router).map_err(|error| irqfd::failed("eventfds", error))?;
        let (irqfds, serving) = irqfds;
        Ok(RoutedVm { irqfds: Arc::new(irqfds), _serving: serving, vm })
    }

    fn get_supported_cpuids(&self, coco: Option<&Coco>) -> Result<HashMap<CpuidIn, CpuidResult>> {
        self.0.get_supported_cpuids(coco)
    }
}

/// Creates the eventfds for a machine's routes, and the thread that serves the eventfds that the
/// kernel does not serve yet.
fn serve(router: KvmRouter) -> Result<(MsiIrqfdSet, IrqfdThread), IrqfdError> {
    let poller = EventfdPoller::new()?;
    Ok((MsiIrqfdSet::new(Arc::new(router), poller.clone())?, poller.spawn()?))
}

/// A virtual machine of Alioth and its eventfds.
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

    fn create_msi_sender(&self) -> Result<Self::MsiSender> {
        Ok(Sender::new(self.vm.create_msi_sender()?, self.irqfds.clone()))
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

    fn sev_launch_start(&self, policy: SevPolicy) -> Result<()> {
        Vm::sev_launch_start(&self.vm, policy)
    }

    fn sev_launch_update_vmsa(&self) -> Result<()> {
        Vm::sev_launch_update_vmsa(&self.vm)
    }

    fn sev_launch_update_data(&self, range: &mut [u8]) -> Result<()> {
        Vm::sev_launch_update_data(&self.vm, range)
    }

    fn sev_launch_measure(&self) -> Result<Vec<u8>> {
        Vm::sev_launch_measure(&self.vm)
    }

    fn sev_launch_finish(&self) -> Result<()> {
        Vm::sev_launch_finish(&self.vm)
    }

    fn snp_launch_start(&self, policy: SnpPolicy) -> Result<()> {
        Vm::snp_launch_start(&self.vm, policy)
    }

    fn snp_launch_update(&self, range: &mut [u8], gpa: u64, kind: SnpPageType) -> Result<()> {
        Vm::snp_launch_update(&self.vm, range, gpa, kind)
    }

    fn snp_launch_finish(&self) -> Result<()> {
        Vm::snp_launch_finish(&self.vm)
    }

    fn tdx_init_vm(&self, attr: TdAttr, cpuids: &HashMap<CpuidIn, CpuidResult>) -> Result<()> {
        Vm::tdx_init_vm(&self.vm, attr, cpuids)
    }

    fn tdx_finalize_vm(&self) -> Result<()> {
        Vm::tdx_finalize_vm(&self.vm)
    }
}
