//! Trials, and the code of their children.

use crate::gic::Gic;
use crate::shared::{Channel, Shared, child_channel, child_wait};
use hyperv_vpci::guest::{Bus, BusConfig, Kernel, SpiDomain, Vectors, VpciError, Wait};
use hyperv_vpci::host::{FunctionInterrupts, Host, HostConfig, HostFunction, Injection, Served};
use hyperv_vpci::protocol::{DeviceDescription, Slot};
use msi_types::{
    BlockRequest, Cpu, Delivery, Fit, IrqState, LocalCpu, MsiParent, NoIdentity, Rewrite, Shape,
    SignalMsi, TaskContext,
};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;

/// Number of rounds, each of which kills one process.
const ROUNDS: u64 = 8;
/// Maximum number of request cycles after the host was killed.
const MANY: u32 = 1000;

/// Returns the number of steps, 1 to 200, after which a round kills its process. The number differs
/// between rounds.
fn steps(round: u64) -> u64 {
    1 + round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 200
}

fn gic() -> Arc<Gic> {
    Arc::new(Gic::new(1020, 1))
}

fn host(gic: &Arc<Gic>) -> (Host, Arc<FunctionInterrupts>) {
    let config = HostConfig::new(1, 0xfeed_0000, [7; 16]);
    let mut host = Host::new(config, Injection::Spi(gic.clone())).expect("memory is available");
    let description = DeviceDescription { serial: 1, ..Default::default() };
    let function = HostFunction::new(description, [0; 6]);
    let device = host.offer(function).expect("the slot is empty");
    (host, device)
}

/// Serves the guest's packets, if it sent any.
fn serve<F: AsFd + Send>(host: &mut Host, channel: &mut Channel<F>) {
    loop {
        match host.serve(channel) {
            Ok(Served::More) => {}
            Ok(Served::All | Served::Blocked) => return,
            Err(error) => panic!("a sound guest broke its channel: {error}"),
        }
    }
}

/// A child guest allocates and frees vectors until it is killed. Its host must then serve the next
/// guest, and a second bus of the same machine must be unaffected.
pub(crate) fn killed_guests() {
    let machine = gic();
    let (mut host, device) = host(&machine);
    let mut most = 0;
    for round in 0..ROUNDS {
        let shared = Shared::new();
        let mut channel = shared.channel();
        let mut child = shared.spawn("guest");
        while host.window().is_none() {
            serve(&mut host, &mut channel);
            shared.wait();
            assert_eq!(child.try_wait().expect("a child"), None, "the guest ended by itself");
        }
        for _ in 0..steps(round) {
            serve(&mut host, &mut channel);
            shared.wait();
        }
        child.kill().expect("the child is running");
        child.wait().expect("the child was killed");
        // Serve the rest of the ring; the host must not wait for the guest.
        serve(&mut host, &mut channel);
        most = most.max(host.vectors(Slot::default()));
        host.reset();
        assert_eq!(host.vectors(Slot::default()), 0);
        for data in 64..128 {
            let message = msi_types::MsiMessage { address: 0xfeed_0000, data };
            assert_eq!(device.signal_msi(NoIdentity, message), Delivery::Blocked);
        }
    }
    assert!(most > 0, "no guest was killed while it had vectors");
}

/// Kernel of a process that stops waiting only when the other process has ended.
struct Process {
    wait: Box<dyn Fn() + Send + Sync>,
    is_alone: Box<dyn Fn() -> bool + Send + Sync>,
}

impl LocalCpu for Process {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}
    fn relax(&self) {
        thread::yield_now();
    }
    fn yield_now(&self) {
        self.relax();
    }
}

impl TaskContext for Process {
    fn may_wait(&self) -> bool {
        true
    }
}

impl Kernel for Process {
    fn wake_ups(&self) -> u32 {
        0
    }
    fn wake(&self) {}
    /// Waits until the eventfd is signaled, and consumes the signal. This process has only one
    /// task.
    fn wait(&self, _: u32, turn: u32) -> Wait {
        let is_alone = (self.is_alone)();
        (self.wait)();
        // The other process may have sent an answer before it ended.
        if is_alone && turn > 1 { Wait::GiveUp } else { Wait::Again }
    }
    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok()
    }
}

const CONFIG: BusConfig = BusConfig::new(0x1000_0000, 0, 256);

/// Allocates and frees vectors repeatedly until the host is silent or `go_on`, which is called with
/// the number of cycles, returns `false`.
fn churn(bus: &Bus, mut go_on: impl FnMut(u64) -> bool) -> Result<u64, VpciError> {
    let device = bus.attach(Slot::default().requester(0), 64).expect("the function is present");
    let request =
        BlockRequest::new(NonZeroU16::new(4).expect("4"), Fit::new(Rewrite::Masked), Cpu::new(0))
            .with_shape(Shape::AlignedGroup);
    let mut count = 0;
    let mut result = Ok(());
    while result.is_ok() && go_on(count) {
        let blocks: Vec<_> = (0..2).map_while(|_| bus.allocate(&device, &request).ok()).collect();
        for block in &blocks {
            if bus.compose(block, 0).is_err() {
                result = Err(VpciError::Silent("compose"));
                break;
            }
            count += 1;
        }
        for block in blocks {
            bus.free(&device, block);
        }
    }
    bus.detach(device);
    result.map(|()| count)
}

/// A child host answers until it is killed. The guest's calls must return, and vectors whose
/// deletion was not confirmed must be released when the bus is closed.
pub(crate) fn killed_hosts() {
    let machine = gic();
    let silent = Arc::new(Process { wait: Box::new(|| ()), is_alone: Box::new(|| false) });
    let domain = Arc::new(SpiDomain::new(machine.clone(), silent).expect("memory is available"));
    for round in 0..ROUNDS {
        let shared = Arc::new(Shared::new());
        let channel = shared.channel();
        let mut child = shared.spawn("host");
        let killed = Arc::new(AtomicBool::new(false));
        let (is_killed, is_dead) = (killed.clone(), killed.clone());
        let guest = Arc::new(Process {
            wait: Box::new(move || shared.wait()),
            is_alone: Box::new(move || is_killed.load(SeqCst)),
        });
        let vectors = Vectors::Spis(domain.clone());
        let bus = Bus::open(CONFIG, Box::new(channel), vectors, guest);
        let bus = bus.expect("the host answers");
        let (kill, order) = mpsc::channel();
        let death = thread::spawn(move || {
            let _ = order.recv();
            child.kill().expect("the child is running");
            child.wait().expect("the child was killed");
            killed.store(true, SeqCst);
        });
        let mut late = 0;
        let result = churn(&bus, |count| {
            if count >= steps(round) {
                let _ = kill.send(());
            }
            late += u32::from(is_dead.load(SeqCst));
            late < MANY
        });
        assert_eq!(result, Err(VpciError::Silent("compose")));
        death.join().expect("the host was killed");
        assert!(bus.close().is_err());
        assert!(machine.claimed().is_empty());
    }
}

/// Runs the child process.
pub(crate) fn child(role: &str) {
    match role {
        "guest" => child_guest(),
        "host" => child_host(),
        other => panic!("{other} is not a role"),
    }
}

/// Returns a function that tells whether the parent has ended.
fn without_parent() -> impl Fn() -> bool + Send + Sync {
    let parent = parent_id();
    move || parent_id() != parent
}

fn child_guest() {
    let machine = gic();
    let is_alone = Box::new(without_parent());
    let kernel = Arc::new(Process { wait: Box::new(child_wait), is_alone });
    let domain = SpiDomain::new(machine, kernel.clone()).expect("memory is available");
    let vectors = Vectors::Spis(Arc::new(domain));
    let bus = Bus::open(CONFIG, Box::new(child_channel()), vectors, kernel);
    let bus = bus.expect("the host answers");
    let _ = churn(&bus, |_| true);
}

fn child_host() {
    let machine = gic();
    let (mut host, _device) = host(&machine);
    let mut channel = child_channel();
    let is_alone = without_parent();
    while !is_alone() {
        serve(&mut host, &mut channel);
        child_wait();
    }
}
