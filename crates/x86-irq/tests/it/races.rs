//! Tests a CPU that goes offline while an arrival on another CPU asks it to clean up.

use crate::board::{QuietApics, request};
use msi_types::{Cpu, Initially, MoveOutcome, MsiParent, RequesterId, Rewrite, Shape};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, OnceLock};
use x86_irq::{ApicId, Arrival, Cleanup, VectorDomain, VectorDomainConfig};

const CPU0: Cpu = Cpu::new(0);
const CPU1: Cpu = Cpu::new(1);

/// CPU that goes offline when it is asked to clean up.
#[derive(Default)]
struct Departure {
    domain: OnceLock<Arc<VectorDomain>>,
    /// CPU that goes offline as soon as it is asked.
    leaving: Mutex<Option<Cpu>>,
    asked: Mutex<Vec<Cpu>>,
}

impl Departure {
    fn ask(&self, cpu: Cpu) {
        self.asked.lock().unwrap().push(cpu);
        let leaves = self.leaving.lock().unwrap().take_if(|leaving| *leaving == cpu).is_some();
        if leaves {
            self.domain.get().unwrap().offline(cpu).unwrap();
        }
    }
}

#[test]
fn going_offline_during_clean_up_frees_the_old_vector() {
    let departure = Arc::new(Departure::default());
    let asked = departure.clone();
    let apics = Arc::new(QuietApics(move |cpu| asked.ask(cpu)));
    let config = VectorDomainConfig::new(NonZeroU16::new(2).unwrap(), apics);
    let domain = Arc::new(VectorDomain::new(config).unwrap());
    departure.domain.set(domain.clone()).unwrap();
    for cpu in [CPU0, CPU1] {
        domain.online(cpu, ApicId::new(cpu.get())).unwrap();
    }
    let free = domain.available_on(CPU0);
    let device = domain.attach(RequesterId::pci(1, 0, 0), 1).unwrap();
    let wanted = request(1, Shape::Independent, Rewrite::Masked, CPU0);
    let block = domain.allocate(&device, &wanted.with_initially(Initially::Unmasked)).unwrap();
    let moved = domain.begin_move(&block, 0, CPU1).unwrap();
    domain.end_move(moved, MoveOutcome::Written).unwrap();
    assert_eq!(domain.available_on(CPU0), free - 1, "no arrival yet");

    // The arrival reads the CPU of the former vector, and that CPU goes offline before it is asked
    // to clean up.
    *departure.leaving.lock().unwrap() = Some(CPU0);
    let place = domain.cpu_vector(block.first()).unwrap();
    assert_eq!(domain.arrive(CPU1, place.vector), Arrival::Deliver(block.first()));
    assert_eq!(*departure.asked.lock().unwrap(), [CPU0]);
    assert_eq!(domain.available_on(CPU0), free, "going offline frees the former vector");

    // Once CPU 0 is online again, a clean-up request to it has no effect.
    domain.online(CPU0, ApicId::new(0)).unwrap();
    assert_eq!(domain.clean_up(CPU0), Cleanup::Done);
    assert_eq!((domain.available_on(CPU0), domain.cpu_vector(block.first())), (free, Some(place)));
    domain.free(&device, block);
    domain.detach(device);
}
