//! A guest's GIC. A move (see `moving`) replaces the GIC, so devices and traps must always access
//! the GIC through this module.

use crate::linked;
use crate::moving;
use crate::scheduler::{self, VcpuId};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, Ordering::SeqCst};
use el2_cpu::{Hardware, Ram};
use gic_arch::{gicd, gits};
use image_rt::heap;
use msi_types::{Delivery, DeviceId, Level, Line, MsiMessage, NoIdentity, SetLine, SignalMsi};
use vgic::saved_state::SavedState;
use vgic::{AccessWidth, ListRegisterVcpu, Vcpu, Vgic, VgicConfig};

/// DeviceID of messages that vCPUs send, as on QEMU's `virt`.
const VCPU: DeviceId = DeviceId::new(0);

/// Handle to a guest's current GIC, with everything needed to create another one.
pub struct Gic {
    guest: usize,
    ram: Ram,
    /// SPIs that are linked to the physical interrupts of the same number.
    pub(crate) linked: Vec<u32>,
    /// Pointer to the current GIC; owns one strong reference.
    current: AtomicPtr<Vgic>,
}

impl Gic {
    /// Creates a GIC after reset, and its vCPUs.
    pub(crate) fn new(
        guest: usize,
        ram: Ram,
        linked: Vec<u32>,
        config: VgicConfig,
    ) -> (Arc<Self>, Vec<ListRegisterVcpu>) {
        let gic = Self { guest, ram, linked, current: AtomicPtr::default() };
        let (vgic, vcpus) = gic.make(config);
        gic.current.store(Arc::into_raw(vgic).cast_mut(), SeqCst);
        (Arc::new(gic), with_list_registers(vcpus))
    }

    fn make(&self, config: VgicConfig) -> (Arc<Vgic>, Vec<Vcpu>) {
        let guest = self.guest;
        let kick = Arc::new(move |cpu| scheduler::kick(VcpuId { guest, cpu }));
        let ram = Arc::new(self.ram.clone());
        let (vgic, vcpus) =
            Vgic::new(config, ram, kick).expect("the guest's GIC could not be created");
        linked::link(guest, &vgic, &self.linked);
        (vgic, vcpus)
    }

    /// Returns the index of the guest in [`guests`](crate::guests).
    pub const fn guest(&self) -> usize {
        self.guest
    }

    /// Returns the configuration.
    pub fn config(&self) -> &VgicConfig {
        self.current().config()
    }

    /// Returns the destination of messages of the guest's devices.
    pub fn doorbells(self: &Arc<Self>) -> Arc<dyn SignalMsi<DeviceId>> {
        self.clone()
    }

    /// Returns the guest's memory.
    pub(crate) const fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Returns the current GIC. The reference must not be used after the CPU has paused for a move,
    /// which replaces the GIC.
    pub(crate) fn current(&self) -> &Vgic {
        // SAFETY: the pointer has been valid since `new`. Only `rebuild` drops the GIC, when no
        // other reference exists.
        unsafe { &*self.current.load(SeqCst) }
    }

    /// Saves the GIC to bytes, creates a new GIC, restores the new GIC from the bytes alone, and
    /// drops the old GIC. Physical interrupts that the old GIC kept active are deactivated;
    /// interrupts that are still asserted are signaled again.
    ///
    /// # Safety
    /// No other CPU may have a reference to the GIC; all other CPUs must be paused in
    /// `moving::stand_still`.
    pub(crate) unsafe fn rebuild(&self, mut vcpus: Vec<ListRegisterVcpu>) -> Vec<ListRegisterVcpu> {
        let before = heap::used();
        let bytes = {
            let _paused: Vec<_> = vcpus.iter_mut().map(ListRegisterVcpu::pause).collect();
            let saved = self.current().save().expect("the GIC cannot be saved");
            postcard::to_allocvec(&saved).expect("not enough memory for the serialized state")
        };
        self.current().reset();
        drop(vcpus);
        let (vgic, vcpus) = self.make(self.current().config().clone());
        let mut vcpus = with_list_registers(vcpus);
        let saved: SavedState =
            postcard::from_bytes(&bytes).expect("the bytes were just serialized");
        drop(bytes);
        let paused: Vec<_> = vcpus.iter_mut().map(ListRegisterVcpu::pause).collect();
        vgic.restore(&saved).expect("the state is from a GIC with the same configuration");
        drop(paused);
        drop(saved);
        linked::lower(&vgic, &self.linked);
        let old = self.current.swap(Arc::into_raw(vgic).cast_mut(), SeqCst);
        // SAFETY: `new` or the last move leaked the reference, and the caller guarantees that it is
        // not in use.
        let old = unsafe { Arc::from_raw(old) };
        assert_eq!(Arc::strong_count(&old), 1, "another reference to the old GIC exists");
        drop(old);
        moving::note_growth(heap::used().saturating_sub(before));
        vcpus
    }
}

fn with_list_registers(vcpus: Vec<Vcpu>) -> Vec<ListRegisterVcpu> {
    let vtr = Hardware::here().vtr;
    let convert = |vcpu: Vcpu| {
        vcpu.with_list_registers(vtr).expect("the CPU's virtual interface is not supported")
    };
    vcpus.into_iter().map(convert).collect()
}

impl SetLine for Gic {
    fn set_line(&self, line: Line, level: Level) -> Delivery {
        self.current().set_line(line, level)
    }

    fn pulse(&self, line: Line) -> Delivery {
        self.current().pulse(line)
    }
}

/// Delivers messages to any of the guest's doorbells. Only the ITS uses the DeviceID.
impl SignalMsi<DeviceId> for Gic {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        let gic = self.current();
        let delivery = gic.its(0).map(|its| its.signal_msi(from, message));
        delivery
            .filter(|delivery| *delivery != Delivery::NoDoorbell)
            .unwrap_or_else(|| gic.signal_msi(NoIdentity, message))
    }
}

/// Handles a vCPU's store to an ITS doorbell. Returns `None` if the address isn't a doorbell.
pub(crate) fn message_of_vcpu(
    vgic: &Vgic,
    address: u64,
    width: AccessWidth,
    value: u64,
) -> Option<Delivery> {
    let is_doorbell = || vgic.config().its.first().is_some_and(|its| its.doorbell() == address);
    if !matches!(width, AccessWidth::Half | AccessWidth::Word) || !is_doorbell() {
        return None;
    }
    let data = (value & width.mask()) as u32;
    Some(vgic.its(0)?.signal_msi(VCPU, MsiMessage { address, data }))
}

/// Returns `true` if the address is in one of the first registers of the distributor, which don't
/// show the state of interrupts.
pub(crate) fn is_head(vgic: &Vgic, address: u64) -> bool {
    address.wrapping_sub(vgic.config().distributor) < u64::from(gicd::IGROUPR.offset())
}

/// Returns `true` if the address is in a register of an ITS from `GITS_CBASER` on. A write to an
/// earlier one may disable the ITS ([`direct`](crate::direct)).
pub(crate) fn is_queue(vgic: &Vgic, address: u64) -> bool {
    const QUEUE: u64 = gits::CBASER.offset() as u64;
    let its = vgic.config().its.first();
    its.is_some_and(|its| address.wrapping_sub(its.base + QUEUE) < gits::SIZE - QUEUE)
}
