//! Records a vCPU's exits and interrupts while it is loaded ([`exits`]).

use crate::exits::{self, Reason};
use crate::guest::Guest;
use alloc::format;
use alloc::string::ToString;
use core::fmt::{self, Display, Formatter};
use doorbell_facts::{Fact, HypervisorFact};
use el2_cpu::syndrome::{DeviceAccess, RegisterAccess, Trap, UndescribedAccess};
use el2_cpu::{Context, Vector};
use gic_arch::ich::{ListRegister, ListRegisterState};
use gic_arch::{IntId, IntIdClass};
use image_rt::{cpu, println};
use msi_types::Cpu;
use vgic::{Block, VirtualInterface};

/// Recorder of one vCPU while it is loaded on a CPU.
pub(crate) struct Recorder<'a> {
    guest: &'a Guest,
    cpu: Cpu,
    is_on: bool,
    /// Current work at EL2 and the time at which it started.
    since: Option<(Reason, u64)>,
}

impl<'a> Recorder<'a> {
    /// Creates a recorder for a vCPU that has just been loaded.
    pub(crate) fn new(guest: &'a Guest, cpu: Cpu) -> Self {
        let is_on = exits::are_recorded();
        let mut recorder = Self { guest, cpu, is_on, since: None };
        if is_on {
            recorder.begin(("load", ""));
        }
        recorder
    }

    /// Returns `true` if anything is recorded.
    #[inline]
    pub(crate) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Records that the vCPU enters its guest.
    #[inline]
    pub(crate) fn enters(&mut self) {
        self.goes();
    }

    /// Records that the vCPU waits or leaves the CPU.
    #[inline]
    pub(crate) fn goes(&mut self) {
        if self.is_on {
            self.end();
        }
    }

    /// Records that the vCPU continues at EL2 for this reason.
    #[inline]
    pub(crate) fn goes_on(&mut self, why: &'static str) {
        if self.is_on {
            self.begin((why, ""));
        }
    }

    /// Records that the vCPU has left its guest.
    #[inline]
    pub(crate) fn exited(&mut self, vector: Vector, context: &Context) {
        if self.is_on {
            self.exit(vector, context);
        }
    }

    /// Records the interrupts that the guest acknowledged: they are no longer pending in the list
    /// registers.
    #[inline]
    pub(crate) fn left(&self, loaded: &VirtualInterface, left: &VirtualInterface) {
        if self.is_on {
            self.record_left(loaded, left);
        }
    }

    /// Returns a copy for [`listed_again`](Self::listed_again), if anything is recorded.
    #[inline]
    pub(crate) fn copy(&self, interface: &VirtualInterface) -> Option<VirtualInterface> {
        self.is_on.then_some(*interface)
    }

    /// Records that the list registers, which the hardware had emptied, were folded and filled in
    /// guest mode. If `is_done` is `false`, they may instead be unchanged: the exit then folds
    /// them.
    #[cold]
    pub(crate) fn listed_again(
        &self,
        before: &VirtualInterface,
        now: &VirtualInterface,
        is_done: bool,
    ) {
        if is_done || now.list != before.list {
            self.left(before, &VirtualInterface::empty());
        }
    }

    fn begin(&mut self, reason: Reason) {
        self.count(reason, |_| ());
    }

    /// Starts an exit for this reason, caused by an instruction with these operands.
    fn begin_exit(&mut self, reason: Reason, detail: impl Display) {
        self.count(reason, |recorder| recorder.print_exit(reason, detail));
    }

    fn count(&mut self, reason: Reason, print: impl FnOnce(&Self)) {
        self.since = Some((reason, cpu::ticks()));
        self.guest.exits.count(reason, || print(self));
    }

    #[cold]
    fn end(&mut self) {
        if let Some((reason, since)) = self.since.take() {
            self.guest.exits.took(reason, cpu::ticks() - since);
        }
    }

    #[cold]
    fn exit(&mut self, vector: Vector, context: &Context) {
        match vector {
            Vector::Interrupt => self.begin_exit(("interrupt", ""), ""),
            Vector::SystemError => self.begin_exit(("SError", ""), ""),
            Vector::Synchronous => {
                let trap = Trap::of_last_exit();
                self.begin_exit(self.reason(trap), Detail(trap, context));
            }
        }
    }

    #[cold]
    fn record_left(&self, loaded: &VirtualInterface, left: &VirtualInterface) {
        for (loaded, left) in loaded.list.iter().zip(&left.list) {
            if is_pending(*loaded) && !is_pending(*left) {
                let intid = IntId::new(loaded.virtual_intid());
                self.guest.exits.count((class(intid), " taken"), || ());
            }
        }
    }

    fn print_exit(&self, (what, how): Reason, detail: impl Display) {
        if exits::are_printed() {
            let fact = HypervisorFact::Exit {
                at: cpu::ticks(),
                guest: self.guest.number,
                vcpu: self.cpu.get(),
                reason: format!("{what}{how}").into(),
                detail: detail.to_string().into(),
            };
            println!("{}", Fact::from(fact));
        }
    }

    fn reason(&self, trap: Trap) -> Reason {
        match trap {
            Trap::WaitForInterrupt => ("WFI", ""),
            Trap::HypervisorCall => ("HVC", ""),
            Trap::SecureMonitorCall => ("SMC", ""),
            Trap::SystemRegister(access) => ("system register", direction(!access.is_read)),
            Trap::Device(access) => (self.device(access.address), direction(access.is_write)),
            Trap::Undescribed(_) => ("undescribed access", ""),
            Trap::CacheMaintenance => ("cache maintenance", ""),
            Trap::Abort { .. } => ("abort", ""),
            Trap::Fetch { .. } => ("fetch", ""),
            Trap::Undefined => ("undefined instruction", ""),
        }
    }

    /// Returns the name of the device at an address.
    fn device(&self, address: u64) -> &'static str {
        let mut regions = self.guest.vgic().regions().iter();
        let block = regions.find(|region| region.addresses.contains(&address));
        match block.map(|region| region.block) {
            Some(Block::Distributor) => "distributor",
            Some(Block::Redistributors(_)) => "redistributor",
            Some(Block::Its(_)) => "ITS",
            Some(Block::MbiAlias) => "alias of the distributor",
            Some(Block::V2m(_)) => "GICv2m frame",
            None => self.guest.devices.name(address).unwrap_or("no device"),
        }
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        self.goes();
    }
}

fn direction(is_write: bool) -> &'static str {
    if is_write { " write" } else { " read" }
}

fn is_pending(register: ListRegister) -> bool {
    use ListRegisterState::{Pending, PendingActive};
    matches!(register.state(), Pending | PendingActive)
}

fn class(intid: IntId) -> &'static str {
    match intid.class() {
        IntIdClass::Sgi => "SGI",
        IntIdClass::Ppi | IntIdClass::ExtendedPpi => "PPI",
        IntIdClass::Lpi => "LPI",
        _ => "SPI",
    }
}

/// Formats the operands of the trapped instruction.
struct Detail<'a>(Trap, &'a Context);

impl Display for Detail<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(trap, context) = self;
        match *trap {
            Trap::HypervisorCall | Trap::SecureMonitorCall => {
                write!(f, "{:#x}", context.register(0))
            }
            Trap::SystemRegister(RegisterAccess { encoding, register, is_read }) => {
                write!(f, "{:#06x}", encoding.packed())?;
                if is_read { Ok(()) } else { write!(f, " = {:#x}", context.register(register)) }
            }
            Trap::Device(DeviceAccess { address, width, register, is_write, .. }) => {
                write!(f, "{address:#x}, {} bytes", width.bytes())?;
                if is_write { write!(f, " = {:#x}", context.register(register)) } else { Ok(()) }
            }
            Trap::Undescribed(UndescribedAccess { virtual_address: address, .. })
            | Trap::Abort { address }
            | Trap::Fetch { address, .. } => write!(f, "{address:#x}"),
            Trap::WaitForInterrupt | Trap::CacheMaintenance | Trap::Undefined => Ok(()),
        }
    }
}
