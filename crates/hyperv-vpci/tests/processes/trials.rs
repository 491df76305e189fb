//! The trials, and what their children do.

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
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Each kills one process.
const ROUNDS: u64 = 8;

/// A time between 1 and 25 ms, another for each round.
fn moment(round: u64) -> Duration {
    Duration::from_micros(1000 + round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 24_000)
}

fn gic() -> Arc<Gic> {
    Arc::new(Gic::new(1020, 1))
}

fn host(gic: &Arc<Gic>) -> (Host, Arc<FunctionInterrupts>) {
    let config = HostConfig::new(1, 0xfeed_0000, [7; 16]);
    let mut host = Host::new(config, Injection::Spi(gic.clone())).expect("memory");
    let description = DeviceDescription { serial: 1, ..Default::default() };
    let function = HostFunction::new(description, [0; 6]);
    let device = host.offer(function).expect("the slot is empty");
    (host, device)
}

/// Serves until `end`, or until the channel fails.
fn serve(host: &mut Host, channel: &mut Channel<OwnedFd>, shared: &Shared, end: Instant) {
    while Instant::now() < end {
        match host.serve(channel) {
            Ok(Served::More) => {}
            Ok(Served::All | Served::Blocked) => shared.wait(),
            Err(error) => panic!("a sound guest broke its channel: {error}"),
        }
    }
}

/// A child guest asks for vectors and gives them back until it is killed. Its host goes on with
/// the next guest; a second bus of the same machine does not notice.
pub(crate) fn killed_guests() {
    let machine = gic();
    let (mut host, device) = host(&machine);
    let mut most = 0;
    for round in 0..ROUNDS {
        let shared = Shared::new();
        let mut channel = shared.channel();
        let mut child = shared.spawn("guest");
        let begin = Instant::now();
        while host.window().is_none() {
            serve(&mut host, &mut channel, &shared, Instant::now() + Duration::from_millis(5));
            assert!(begin.elapsed() < Duration::from_secs(20), "the guest never came");
        }
        serve(&mut host, &mut channel, &shared, Instant::now() + moment(round));
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        // The rest of the ring is served, and nothing is waited for.
        serve(&mut host, &mut channel, &shared, Instant::now() + Duration::from_millis(1));
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

struct Process<F>(F);

impl<F: Fn() + Send + Sync> LocalCpu for Process<F> {
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

impl<F: Fn() + Send + Sync> TaskContext for Process<F> {
    fn may_wait(&self) -> bool {
        true
    }
}

impl<F: Fn() + Send + Sync> Kernel for Process<F> {
    fn wake_ups(&self) -> u32 {
        0
    }
    fn wake(&self) {}
    /// Waits for a signal of the eventfd, which the only task of this process consumes.
    fn wait(&self, _: u32, turn: u32) -> Wait {
        (self.0)();
        if turn < 6 { Wait::Again } else { Wait::GiveUp }
    }
    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok()
    }
}

const CONFIG: BusConfig = BusConfig::new(0x1000_0000, 0, 256);

/// Takes vectors and gives them back, again and again, until the host is silent. Counts them.
fn churn(bus: &Bus, end: impl Fn() -> bool) -> Result<u64, VpciError> {
    let device = bus.attach(Slot::default().requester(0), 64).expect("the function is there");
    let request =
        BlockRequest::new(NonZeroU16::new(4).expect("4"), Fit::new(Rewrite::Masked), Cpu::new(0))
            .with_shape(Shape::AlignedGroup);
    let mut count = 0;
    let mut result = Ok(());
    while result.is_ok() && !end() {
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

/// A child host answers until it is killed. The guest's calls return, and the vectors that no host
/// confirmed come back when the bus is closed.
pub(crate) fn killed_hosts() {
    let machine = gic();
    let silent: Arc<dyn LocalCpu> = Arc::new(Process(|| ()));
    let domain = Arc::new(SpiDomain::new(machine.clone(), silent).expect("memory"));
    for round in 0..ROUNDS {
        let shared = Arc::new(Shared::new());
        let channel = shared.channel();
        let mut child = shared.spawn("host");
        let waiting = shared.clone();
        let kernel = Arc::new(Process(move || waiting.wait()));
        let vectors = Vectors::Spis(domain.clone());
        let begin = Instant::now();
        let bus = Bus::open(CONFIG, Box::new(channel), vectors, kernel);
        let bus = bus.expect("the host answers within its time");
        let killer = thread::spawn(move || {
            thread::sleep(moment(round));
            child.kill().expect("it runs");
            child.wait().expect("it was killed");
        });
        let result = churn(&bus, || begin.elapsed() > Duration::from_secs(20));
        assert_eq!(result, Err(VpciError::Silent("compose")));
        killer.join().expect("the host was killed");
        assert!(bus.close().is_err());
        assert!(machine.claimed().is_empty());
    }
}

/// The other process.
pub(crate) fn child(role: &str) {
    match role {
        "guest" => child_guest(),
        "host" => child_host(),
        other => panic!("{other} is no role"),
    }
}

fn child_guest() {
    let machine = gic();
    let kernel = Arc::new(Process(child_wait));
    let domain = SpiDomain::new(machine, kernel.clone()).expect("memory");
    let vectors = Vectors::Spis(Arc::new(domain));
    let bus = Bus::open(CONFIG, Box::new(child_channel()), vectors, kernel);
    let bus = bus.expect("the host answers");
    // The parent kills it long before.
    let begin = Instant::now();
    let _ = churn(&bus, || begin.elapsed() > Duration::from_secs(30));
}

fn child_host() {
    let machine = gic();
    let (mut host, _device) = host(&machine);
    let mut channel = child_channel();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) {
        match host.serve(&mut channel) {
            Ok(Served::More) => {}
            Ok(Served::All | Served::Blocked) => child_wait(),
            Err(error) => panic!("a sound guest broke its channel: {error}"),
        }
    }
}
