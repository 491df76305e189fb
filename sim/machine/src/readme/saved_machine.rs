//! Tests that save and restore the guide's machine while its guest moves the function's vectors.

use super::guest::{CPUS, GuestKernel, HANG, VECTORS, ram};
use super::vmm::{CAPABILITY, Vm, run};
use doorbell_hardware::platform::MachinePlatform;
use gic_bringup::Irqchip;
use irq_domain::{IrqContext, WiredRequest};
use irq_routing::msix::Signaled;
use msi_types::{Cpu, Delivery, HwIrq, Trigger};
use rustix::event::{EventfdFlags, eventfd};
use std::ops::{Range, RangeInclusive};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use vgic::{AccessWidth, Vcpu};
use vgic_monitor::machine_state::MachineState;

const UART: u32 = 33;

/// Counts of the LPIs and of the UART's SPI that the guest has taken.
#[derive(Default)]
struct Taken {
    lpis: [AtomicU32; VECTORS as usize],
    uart: AtomicU32,
    gave_up: AtomicBool,
}

impl Taken {
    fn lpis(&self) -> Vec<u32> {
        self.lpis.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }

    /// Waits until `condition` holds, for at most `HANG`. After a timeout, all later waits
    /// end immediately.
    fn wait(&self, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + HANG;
        while !self.gave_up.load(Ordering::SeqCst) && !condition(self) {
            self.gave_up.store(Instant::now() >= deadline, Ordering::SeqCst);
            thread::yield_now();
        }
    }
}

/// Requests all interrupts, then masks, moves and unmasks the function's vectors forever.
fn move_vectors(guest: &GuestKernel, irqchip: &Irqchip<MachinePlatform>, taken: &Arc<Taken>) {
    let count = |counter: fn(&Taken, usize) -> &AtomicU32, index| {
        let taken = taken.clone();
        move |_: &IrqContext<'_>| _ = counter(&taken, index).fetch_add(1, Ordering::SeqCst)
    };
    let count_lpi = |vector| count(|taken, vector| &taken.lpis[vector], usize::from(vector));
    let uart = WiredRequest::new(HwIrq::new(UART), Trigger::Level, "uart");
    let count_uart = count(|taken, _| &taken.uart, 0);
    let _uart = irqchip.interrupts().request_wired(uart, count_uart).unwrap();
    let first = guest.probe(irqchip, count_lpi(0));
    let request = |vector| first.device.request(vector, "queue", count_lpi(vector)).unwrap();
    let others: Vec<_> = (1..VECTORS).map(request).collect();
    for round in 0.. {
        for (vector, handle) in (round..).zip([&first.handle].into_iter().chain(&others)) {
            handle.disable();
            handle.set_affinity(Cpu::new(vector % CPUS)).unwrap();
            handle.enable();
        }
    }
}

/// Signals each vector once per round. Each round waits until the guest has taken all interrupts,
/// so that no two messages are merged.
fn send(machine: &Vm, taken: &Taken, rounds: RangeInclusive<u32>) {
    for round in rounds {
        signal(machine, 0..VECTORS);
        taken.wait(|taken| taken.lpis().iter().all(|&count| count >= round));
    }
}

fn signal(machine: &Vm, vectors: Range<u16>) {
    for vector in vectors {
        let signaled = machine.function.signal(vector);
        assert!(
            matches!(signaled, Signaled::Sent(Delivery::Pending) | Signaled::Held),
            "{signaled:?}"
        );
    }
}

/// Connects a device in another process, which signals vector 0.
fn connect_queue(machine: &Vm, queue: &OwnedFd) {
    let source = machine.queues.add(queue.try_clone().unwrap()).unwrap();
    machine.queues.set_vector(source, Some(0)).unwrap();
}

fn new_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

/// Level-triggered device, which signals the eventfd `trigger` and reads the eventfd `resample`.
struct Uart {
    trigger: OwnedFd,
    resample: OwnedFd,
    ended: AtomicU64,
}

impl Uart {
    fn new() -> Self {
        Self { trigger: new_eventfd(), resample: new_eventfd(), ended: AtomicU64::new(0) }
    }

    fn fds(&self) -> [OwnedFd; 2] {
        [&self.trigger, &self.resample].map(|fd| fd.try_clone().unwrap())
    }

    fn raise(&self) {
        rustix::io::write(&self.trigger, &1u64.to_ne_bytes()).unwrap();
    }

    /// Returns the number of times that the guest has ended the interrupt.
    fn ended(&self) -> u64 {
        let mut count = [0; 8];
        if rustix::io::read(&self.resample, &mut count).is_ok() {
            self.ended.fetch_add(u64::from_ne_bytes(count), Ordering::SeqCst);
        }
        self.ended.load(Ordering::SeqCst)
    }
}

fn save(machine: &Vm, vcpus: &mut [Vcpu]) -> MachineState {
    machine.parts().save(vcpus, HANG).unwrap()
}

fn uart_line(state: &MachineState) -> bool {
    let interrupts = &state.gic.distributor.interrupts;
    interrupts.iter().any(|interrupt| interrupt.intid.get() == UART && interrupt.line)
}

#[test]
fn the_machine_in_the_guide_loses_no_interrupt_across_a_restore() {
    let (ram, taken) = (ram(), Arc::<Taken>::default());
    let (device, queue) = (Uart::new(), new_eventfd());
    let (machine, mut vcpus) = Vm::new(ram.clone()).unwrap();
    let counted = taken.clone();
    let program = move |guest: &GuestKernel, irqchip: &_| move_vectors(guest, irqchip, &counted);
    let mut cpus = GuestKernel::start(&machine.gic, ram.clone(), program);
    let wire = machine.connect(UART, device.fds()).unwrap();
    connect_queue(&machine, &queue);
    run(&machine, &mut vcpus, &mut cpus, || {
        send(&machine, &taken, 1..=50);
        device.raise();
        taken.wait(|taken| taken.uart.load(Ordering::SeqCst) == 1);
        taken.wait(|_| device.ended() == 1);
        signal(&machine, 1..VECTORS);
    });
    device.raise();
    rustix::io::write(&queue, &1u64.to_ne_bytes()).unwrap();
    let state = save(&machine, &mut vcpus);
    assert!(uart_line(&state));
    let json = serde_json::to_string(&state).unwrap();
    drop((wire, machine, vcpus));

    let (machine, mut vcpus) = Vm::new(ram).unwrap();
    let _wire = machine.connect(UART, device.fds()).unwrap();
    connect_queue(&machine, &queue);
    let state = serde_json::from_str(&json).unwrap();
    machine.parts().check(&state).unwrap();
    machine.parts().restore(&mut vcpus, &state).unwrap();
    assert!(!uart_line(&save(&machine, &mut vcpus)));
    assert_eq!(device.ended(), 2, "the restore asks the device to signal again");
    device.raise();
    run(&machine, &mut vcpus, &mut cpus, || {
        taken.wait(|taken| taken.lpis().iter().all(|&count| count >= 51));
        send(&machine, &taken, 52..=100);
        taken.wait(|taken| taken.uart.load(Ordering::SeqCst) == 2);
        taken.wait(|_| device.ended() == 3);
    });
    assert_eq!(device.ended(), 3);
    assert_eq!(taken.lpis(), [100; VECTORS as usize]);
    assert_eq!(taken.uart.load(Ordering::SeqCst), 2);
    assert!(!uart_line(&save(&machine, &mut vcpus)));
    assert_eq!(machine.gic.events().total(), 0);
}

#[test]
fn a_guest_enables_msix_by_an_access_of_any_width() {
    let accesses = [
        (2, AccessWidth::Half, 0x8000),
        (0, AccessWidth::Word, 0x801f_0011),
        (3, AccessWidth::Byte, 0x80),
    ];
    for (offset, width, value) in accesses {
        let (machine, _vcpus) = Vm::new(ram()).unwrap();
        machine.write(CAPABILITY + offset, width, value);
        assert!(machine.function.control().enable(), "{width:?} at {offset}");
        assert_eq!(machine.read(CAPABILITY, AccessWidth::Word), 0x801f_0011);
        assert_eq!(machine.read(CAPABILITY + 8, AccessWidth::Word), 0x800);
    }
}
