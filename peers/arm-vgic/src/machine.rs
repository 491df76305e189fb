//! A virtual GIC with an ITS, programmed through its registers and command queue.

use arm_vgic::{
    CpuInterfaceState, EventId, GicAffinity, GicV3Backend, GicV3BackendError, GicV3Config,
    GicV3Controller, GicV3MmioRegion, GicV3SpiOwnership, GicV3VcpuBinding, GicV3VcpuWake,
    GicVcpuId, GuestMemory, GuestMemoryError, ItsDeviceId, VgicError,
};
use axvm_types::AccessWidth;
use std::sync::{Arc, Mutex, PoisonError};

const QUEUE: u64 = 0x4000_0000;
/// One page, which holds 128 commands.
const QUEUE_BYTES: u64 = 0x1000;
const CTLR: u64 = 0;
const CBASER: u64 = 0x80;
const CWRITER: u64 = 0x88;
const FIRST_LPI: u32 = 8192;
/// Number of events of each device.
pub(crate) const EVENTS: u32 = 1 << EVENT_BITS;
const EVENT_BITS: u32 = 5;

const MAPD: u64 = 0x08;
const MAPC: u64 = 0x09;
const MAPTI: u64 = 0x0a;

/// The machine. The machine's events are numbered consecutively, with [`EVENTS`] events for each
/// device.
pub(crate) struct Machine {
    gic: GicV3Controller,
    queue: Arc<Queue>,
    written: u64,
    vcpus: Vec<GicV3VcpuBinding>,
}

/// Guest memory. The model reads only the command queue.
struct Queue(Mutex<Vec<u8>>);

impl GuestMemory for Queue {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), GuestMemoryError> {
        let queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(address.wrapping_sub(QUEUE)).unwrap_or(usize::MAX);
        let found = queue.get(start..).and_then(|rest| rest.get(..bytes.len()));
        bytes
            .copy_from_slice(found.ok_or_else(|| {
                GuestMemoryError::new("read", "the address is outside the queue")
            })?);
        Ok(())
    }
}

struct NoWake;

impl GicV3VcpuWake for NoWake {
    fn wake(&self) -> Result<(), VgicError> {
        Ok(())
    }
}

/// A guest that, before each exit, acknowledges and deactivates all interrupts in its list
/// registers.
struct Diligent;

impl GicV3Backend for Diligent {
    fn load_cpu_interface(
        &self,
        _: GicVcpuId,
        _: &CpuInterfaceState,
    ) -> Result<(), GicV3BackendError> {
        Ok(())
    }

    fn save_cpu_interface(
        &self,
        _: GicVcpuId,
        state: &mut CpuInterfaceState,
    ) -> Result<(), GicV3BackendError> {
        state.list_registers_mut().fill(None);
        Ok(())
    }
}

impl Machine {
    /// Returns a machine whose events are mapped to consecutive LPIs. The events of device n target
    /// vCPU n modulo `targets`.
    pub(crate) fn mapped(devices: u32, targets: u16) -> Result<Self, VgicError> {
        let count = usize::from(targets);
        let redistributors = GicV3MmioRegion::new(0x080a_0000, 0x2_0000 * u64::from(targets))?;
        let distributor = GicV3MmioRegion::new(0x0800_0000, 0x1_0000)?;
        let config = GicV3Config::new(
            GicV3SpiOwnership::AllGuestOwned,
            distributor,
            redistributors,
            0x2_0000,
            count,
        )?
        .with_spi_count(32)?
        .with_its(GicV3MmioRegion::new(0x0808_0000, 0x2_0000)?)?
        .with_lpi_limit(0x1_0000)?
        .with_its_command_budget(128)?;
        let queue = Arc::new(Queue(Mutex::new(vec![0; 0x1000])));
        let gic = GicV3Controller::new_with_guest_memory(
            config,
            Arc::new(Diligent),
            Some(Arc::clone(&queue) as _),
        )?;
        let attach = |vcpu: u8| {
            let binding = gic.attach_vcpu(
                GicVcpuId::new(vcpu.into()),
                GicAffinity::new(0, 0, 0, vcpu),
                Arc::new(NoWake),
            )?;
            gic.write_redistributor(GicVcpuId::new(vcpu.into()), 0, AccessWidth::Dword, 1)?;
            Ok(binding)
        };
        let vcpus = (0..u8::try_from(targets).unwrap_or(u8::MAX))
            .map(attach)
            .collect::<Result<_, VgicError>>()?;
        gic.write_its(CBASER, AccessWidth::Qword, QUEUE)?;
        gic.write_its(CTLR, AccessWidth::Dword, 1)?;
        let mut machine = Self { gic, queue, written: 0, vcpus };
        for vcpu in 0..u64::from(targets) {
            machine.command([MAPC, 0, 1 << 63 | vcpu << 16 | vcpu, 0])?;
        }
        for device in 0..devices {
            machine.command([
                u64::from(device) << 32 | MAPD,
                u64::from(EVENT_BITS - 1),
                1 << 63,
                0,
            ])?;
            for event in 0..EVENTS {
                let lpi = u64::from(FIRST_LPI + device * EVENTS + event);
                let collection = u64::from(device) % u64::from(targets);
                machine.command([
                    u64::from(device) << 32 | MAPTI,
                    lpi << 32 | u64::from(event),
                    collection,
                    0,
                ])?;
                machine.gic.configure_msi_input(ItsDeviceId::new(device), EventId::new(event))?;
            }
        }
        Ok(machine)
    }

    fn command(&mut self, words: [u64; 4]) -> Result<(), VgicError> {
        let image: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let at = usize::try_from(self.written).unwrap_or(0);
        self.queue.0.lock().unwrap_or_else(PoisonError::into_inner)[at..at + 32]
            .copy_from_slice(&image);
        self.written = (self.written + 32) % QUEUE_BYTES;
        self.gic.write_its(CWRITER, AccessWidth::Qword, self.written)
    }

    /// Sends an MSI of a device.
    pub(crate) fn send(&self, event: u32) -> Result<(), VgicError> {
        self.gic.signal_msi(ItsDeviceId::new(event / EVENTS), EventId::new(event % EVENTS))
    }

    /// Simulates a vCPU that enters the guest with list registers that hold pending interrupts,
    /// acknowledges all of them, and exits. Returns their events.
    pub(crate) fn take(&self, vcpu: usize) -> Result<Vec<u32>, VgicError> {
        let Some(vcpu) = self.vcpus.get(vcpu) else { return Ok(Vec::new()) };
        vcpu.load()?;
        let state = vcpu.cpu_interface_snapshot()?;
        let taken = state
            .list_registers()
            .iter()
            .flatten()
            .map(|entry| entry.intid().raw() - FIRST_LPI)
            .collect();
        vcpu.save()?;
        Ok(taken)
    }
}
