use super::monitor::{Guest, create};
use std::error::Error;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::{mem, thread};
use vgic_monitor::gic_arch::icc::SysRegEncoding;
use vgic_monitor::irq_routing::device_eventfds::DeviceEventfds;
use vgic_monitor::irq_routing::irqfd::{EventfdPoller, Irqfd, IrqfdSet};
use vgic_monitor::irq_routing::irqfd::{IrqfdThread, MessageEventfdSet};
use vgic_monitor::irq_routing::msix::{MsixLayout, MsixTable};
use vgic_monitor::irq_routing::{Change, Pin, Route, Router, Routing, Sender};
use vgic_monitor::machine_state::Parts;
use vgic_monitor::msi_types::pci::msix::{self, BarOffset};
use vgic_monitor::msi_types::{Cpu, DeviceId, Kick};
use vgic_monitor::vgic::{AccessWidth, GuestMemory, Inputs, Sleep, Vcpu, Vgic};

/// A vCPU's kick, which lasts until its thread has seen it.
#[derive(Default)]
pub struct KickFlag {
    set: Mutex<bool>,
    changed: Condvar,
}

impl KickFlag {
    pub fn set(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_one(); // and make the hypervisor's run call return
    }

    pub fn take(&self) -> bool {
        mem::take(&mut *self.set.lock().unwrap())
    }

    pub fn wait(&self) {
        let set = self.set.lock().unwrap();
        *self.changed.wait_while(set, |set| !*set).unwrap() = false;
    }
}

#[derive(Default)]
pub struct Kicks(pub [KickFlag; 4]);

impl Kick for Kicks {
    fn kick(&self, cpu: Cpu) {
        self.0[cpu.index()].set();
    }
}

pub struct Vm {
    pub gic: Arc<Vgic>,
    pub router: Arc<Router>,
    pub function: MsixTable,
    /// Eventfds through which another process signals the function's vectors.
    pub queues: Arc<DeviceEventfds<MessageEventfdSet>>,
    pub kicks: Arc<Kicks>,
    /// Eventfds of level-triggered devices.
    irqfds: Arc<IrqfdSet>,
    poller: Arc<EventfdPoller>, // serves all eventfds
    _thread: IrqfdThread,
}

impl Vm {
    pub fn new(memory: Arc<dyn GuestMemory>) -> Result<(Self, Vec<Vcpu>), Box<dyn Error>> {
        let kicks = Arc::new(Kicks::default());
        let Guest { gic, vcpus, router } = create(memory, kicks.clone())?;
        let poller = EventfdPoller::new()?;
        let queues = MessageEventfdSet::new(poller.clone(), router.clone());
        let queues = Arc::new(DeviceEventfds::new(queues));
        let irqfds = IrqfdSet::new(poller.clone(), router.clone());
        gic.observe_lines(irqfds.observer())?;
        let sender = Sender::Device(DeviceId::new(8)); // 00:01.0, if msi-map is the identity
        let table = BarOffset::from(0); // in BAR 0, whose address is TABLE
        let pending = BarOffset::from(0x800);
        let function = MsixTable::new(32, sender, router.clone())?
            .with_layout(MsixLayout { next: 0, table, pending })
            .with_observer(queues.clone());
        let thread = poller.spawn()?;
        let machine =
            Self { gic, router, function, queues, kicks, irqfds, poller, _thread: thread };
        Ok((machine, vcpus))
    }
}

pub const TABLE: u64 = 0x1000_0000; // in a BAR
pub const PENDING_BITS: u64 = TABLE + 0x800;
pub const PENDING_BITS_END: u64 = TABLE + 0x1000;
pub const CAPABILITY: u64 = 0x3f00_8040; // in the function's configuration space
pub const CAPABILITY_END: u64 = CAPABILITY + msix::LENGTH as u64;

impl Vm {
    pub fn read(&self, address: u64, width: AccessWidth) -> u64 {
        let mut bytes = [0; 8];
        let accessed = &mut bytes[..width.bytes() as usize];
        match address {
            TABLE..PENDING_BITS => self.function.read(address - TABLE, accessed),
            PENDING_BITS..PENDING_BITS_END => {
                self.function.read_pending(address - PENDING_BITS, accessed);
            }
            CAPABILITY..CAPABILITY_END => {
                let offset = u16::try_from(address - CAPABILITY).unwrap();
                self.function.read_capability(offset, accessed);
            }
            _ => return self.gic.read(address, width).unwrap_or(width.mask()),
        }
        u64::from_le_bytes(bytes)
    }

    pub fn write(&self, address: u64, width: AccessWidth, value: u64) {
        let bytes = &value.to_le_bytes()[..width.bytes() as usize];
        match address {
            TABLE..PENDING_BITS => self.function.write(address - TABLE, bytes),
            CAPABILITY..CAPABILITY_END => {
                let offset = u16::try_from(address - CAPABILITY).unwrap();
                self.function.write_capability(offset, bytes);
            }
            _ if self.gic.write_until_done(address, width, value).is_ok() => {
                self.gic.events().drain(|fault| eprintln!("guest: {fault}"));
            }
            _ => eprintln!("guest: write to {address:#x}, where no device is"),
        }
    }
}

pub enum Exit {
    Read(u64, AccessWidth),
    Write(u64, AccessWidth, u64),
    Mrs(SysRegEncoding),
    Msr(SysRegEncoding, u64),
    Wfi,
    Kicked,
}

/// A vCPU of your hypervisor.
pub trait GuestCpu {
    /// Asserts the interrupt inputs and runs the guest until it exits. Must return `Kicked`, and
    /// take the kick, if one arrives or arrived before the call.
    fn run(&mut self, inputs: Inputs, kick: &KickFlag) -> Exit;
    /// Writes the result of `Read` or `Mrs` to the guest's register.
    fn complete(&mut self, value: u64);
    fn inject_undefined(&mut self);
}

fn run_vcpu(machine: &Vm, vcpu: &mut Vcpu, cpu: &mut impl GuestCpu, pause: &AtomicBool) {
    let kick = &machine.kicks.0[vcpu.cpu().index()];
    while !pause.load(Ordering::SeqCst) {
        let exit = vcpu.run_guest(|inputs| cpu.run(inputs, kick));
        match exit {
            Exit::Read(address, width) => cpu.complete(machine.read(address, width)),
            Exit::Write(address, width, value) => machine.write(address, width, value),
            Exit::Mrs(register) => match vcpu.read_sysreg(register) {
                Ok(value) => cpu.complete(value),
                Err(_) => cpu.inject_undefined(),
            },
            Exit::Msr(register, value) => {
                if vcpu.write_sysreg(register, value).is_err() {
                    cpu.inject_undefined();
                }
            }
            Exit::Wfi => {
                if vcpu.prepare_to_sleep() == Sleep::Ready {
                    kick.wait();
                    vcpu.returned();
                }
            }
            Exit::Kicked => {}
        }
    }
}

/// Runs all vCPUs until `monitor` returns.
pub fn run(
    machine: &Vm,
    vcpus: &mut [Vcpu],
    cpus: &mut [impl GuestCpu + Send],
    monitor: impl FnOnce(),
) {
    let pause = AtomicBool::new(false);
    thread::scope(|scope| {
        for (vcpu, cpu) in vcpus.iter_mut().zip(cpus) {
            scope.spawn(|| run_vcpu(machine, vcpu, cpu, &pause));
        }
        monitor();
        pause.store(true, Ordering::SeqCst);
        machine.kicks.0.iter().for_each(KickFlag::set);
    });
}

impl Vm {
    /// Connects a level-triggered device until the result is dropped.
    pub fn connect(
        &self,
        spi: u32,
        [trigger, resample]: [OwnedFd; 2],
    ) -> Result<Irqfd, Box<dyn Error>> {
        let gsi = self.router.allocate()?;
        self.router.commit(&[Change::Set(gsi, Route::Pin(Pin::of_spi(spi)?))])?;
        Ok(self.irqfds.bind_level(trigger, resample, gsi)?)
    }
}

impl Vm {
    /// Returns the parts that a save or a restore covers.
    pub fn parts(&self) -> Parts<'_> {
        Parts::new(&self.gic)
            .with_router(&*self.router)
            .with_function("function", &self.function)
            .with_irqfds(&self.irqfds)
            .with_poller(&self.poller)
    }
}
