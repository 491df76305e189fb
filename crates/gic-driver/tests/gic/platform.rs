//! `Platform` trait tests.

use crate::fake::{Board, BoardFrame, DISTRIBUTOR, FakeRegisters, REDISTRIBUTOR};
use doorbell_test_support::with_allocations;
use gic_arch::gicr::STRIDE_V3;
use gic_arch::{Affinity, IntId, Priority};
use gic_driver::{
    CpuInterface, CpuInterfaceConfig, Distributor, DistributorConfig, GicCpuInterface, GicError,
    PhysicalRegion, Platform, PrivateConfig, Redistributor, RedistributorRegion, Wait,
    find_redistributor,
};
use msi_types::{IrqState, LocalCpu, Trigger};

/// A kernel with a timer and no heap. The kernel implements only these five methods.
struct Timekeeper(Board);

impl LocalCpu for Timekeeper {
    fn irq_save(&self) -> IrqState {
        self.0.irq_save()
    }

    fn irq_restore(&self, state: IrqState) {
        self.0.irq_restore(state);
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl Platform for Timekeeper {
    type Mmio = BoardFrame;

    fn map(&self, region: PhysicalRegion) -> Option<BoardFrame> {
        self.0.map(region)
    }

    fn wait(&self, turn: u32) -> Wait {
        self.0.wait(turn)
    }
}

fn start_timer<P: Platform>(
    platform: &P,
    registers: &FakeRegisters,
    timer: IntId,
) -> Result<Redistributor<P::Mmio>, GicError> {
    let (priority, cpu) = (Priority::new(0xa0), Affinity::new(0, 0, 0, 1));
    let distributor = Distributor::map(platform, DISTRIBUTOR)?;
    distributor.init(platform, DistributorConfig::new(priority, cpu))?;
    let region = PhysicalRegion { base: REDISTRIBUTOR, bytes: 2 * STRIDE_V3 };
    let region = RedistributorRegion::new(region);
    let redistributor = find_redistributor(platform, &[region], cpu)?;
    redistributor.wake(platform)?;
    redistributor.init(platform, PrivateConfig::new(priority, distributor.view()))?;
    <CpuInterface<_>>::enable(registers, CpuInterfaceConfig::default())?;
    let interrupt = redistributor.interrupt(timer)?;
    interrupt.set_trigger(platform, Trigger::Level)?;
    interrupt.enable();
    Ok(redistributor)
}

#[test]
fn a_timer_needs_four_methods_and_no_heap() {
    let fake = Board::with_cpus(2);
    let (kernel, registers) = (Timekeeper(fake.clone()), FakeRegisters::default());
    let timer = IntId::ppi(11).unwrap();
    let redistributor = with_allocations(0, || start_timer(&kernel, &registers, timer)).unwrap();
    assert_eq!(redistributor.affinity(), Affinity::new(0, 0, 0, 1));
    let interrupt = redistributor.interrupt(timer).unwrap();
    assert!(interrupt.is_enabled());
    registers.raise(timer.get());
    let mut taken = None;
    with_allocations(0, || {
        <CpuInterface<_>>::new(&registers).handle_pending(|intid| {
            assert_eq!(taken.replace(intid), None);
        });
    });
    assert_eq!(taken, Some(timer));
    with_allocations(0, || interrupt.disable(&kernel)).unwrap();
    assert!(!interrupt.is_enabled());
}

#[test]
fn a_reference_or_arc_to_a_platform_is_usable_as_a_platform() {
    fn waits(platform: impl Platform) -> Wait {
        platform.irq_restore(platform.irq_save());
        platform.wait(u32::MAX)
    }
    let kernel = Timekeeper(Board::with_cpus(1));
    assert_eq!(waits(&kernel), Wait::GiveUp);
    assert_eq!(waits(std::sync::Arc::new(kernel)), Wait::GiveUp);
}
