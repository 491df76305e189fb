//! Both ends with an exhausted heap: operations must fail without partial effects, and must not
//! allocate if they free resources.

use crate::board::{
    BUS, Board, OTHER, SLOT, config, function, host_config, prepare, refusal, request, spis,
};
use crate::gic::Gic;
use crate::peer::{Peer, create};
use crate::tamper::Tamper;
use doorbell_test_support::{after_failures, outside, until_it_succeeds, with_allocations};
use hyperv_vpci::guest::{Bus, SpiDomain, VpciError};
use hyperv_vpci::host::{Host, HostError, Injection, RestoreError};
use hyperv_vpci::protocol::Version;
use hyperv_vpci::protocol::reply::Status;
use msi_types::{Cpu, MoveOutcome, MsiError, MsiParent, Shape};
use std::sync::Arc;

fn gic() -> Arc<Gic> {
    Arc::new(Gic::new(1020, 4))
}

#[test]
fn host_creation_without_memory_is_refused() {
    let injection = Injection::Spi(gic());
    let no_memory = |error| assert_eq!(error, HostError::NoMemory);
    let new = || Host::new(host_config(Version::V1_4), injection.clone());
    let mut host = after_failures(1, new, no_memory);
    after_failures(2, || host.offer(function(SLOT)), no_memory);
    assert_eq!(host.save().functions.len(), 1);
}

#[test]
fn a_request_without_memory_is_refused() {
    let mut peer = Peer::on(Version::V1_4);
    // This limits allocations of the host, not of its peer.
    let refused = peer.ask_with_allocations(0, &create(SLOT, 64, 1));
    assert_eq!(refused, Status::BAD_DATA);
    assert_eq!(peer.host.vectors(SLOT), 0);
    assert_eq!(peer.ask_with_allocations(1, &create(SLOT, 64, 1)), Status::SUCCESS);
    assert_eq!(peer.host.vectors(SLOT), 1);
}

#[test]
fn host_restore_without_memory_is_refused() {
    let mut peer = Peer::on(Version::V1_4);
    assert_eq!(peer.ask(&create(SLOT, 64, 2)), Ok(Status::SUCCESS));
    let saved = peer.host.save();
    let functions = [SLOT, OTHER].map(function);
    let injection = Injection::Spi(gic());
    let config = || host_config(Version::V1_4);
    let restore = || Host::restore(config(), injection.clone(), &functions, &saved);
    let no_memory = |error| assert_eq!(error, RestoreError::Host(HostError::NoMemory));
    let (host, _) = after_failures(5, restore, no_memory);
    assert_eq!(host.save(), saved);
}

#[test]
fn opening_a_bus_without_memory_is_refused() {
    let (gic, vectors) = spis();
    let (bus, failures) = until_it_succeeds(
        || {
            // Each attempt uses a new host.
            let (kernel, _, channel) = outside(|| {
                let injection = Injection::Spi(gic.clone());
                let (kernel, devices, near) = prepare(Version::V1_4, injection, &Tamper::default());
                (kernel, devices, Box::new(near))
            });
            Bus::open(config(), channel, vectors.clone(), kernel)
        },
        |error| assert_eq!(error, VpciError::NoMemory),
    );
    assert!(failures >= 4, "{failures}");
    assert!(bus.attach(SLOT.requester(BUS), 1).is_ok());
    assert!(gic.claimed().is_empty());
}

#[test]
fn creating_a_domain_without_memory_is_refused() {
    let gic: Arc<Gic> = gic();
    let idle = Arc::new(crate::board::Idle);
    after_failures(1, || SpiDomain::new(gic.clone(), idle.clone()), |_| {});
}

#[test]
fn attaching_without_memory_is_refused() {
    let board = Board::new();
    let attach = || board.bus.attach(SLOT.requester(BUS), 4);
    let device = after_failures(1, attach, |error| {
        assert!(matches!(error, MsiError::NoMemory(_)), "{error}");
    });
    board.bus.detach(device);
}

#[test]
fn vector_operations_allocate_no_memory() {
    let (board, device) = Board::with_device();
    with_allocations(0, || {
        let block = board.bus.allocate(&device, &request(4, Shape::AlignedGroup)).unwrap();
        board.bus.compose(&block, 0).unwrap();
        let moved = board.bus.begin_move(&block, 1, Cpu::new(2)).unwrap();
        board.bus.end_move(moved, MoveOutcome::Written).unwrap();
        board.bus.free(&device, block);
        board.bus.detach(device);
    });
    assert_eq!((board.gic.claimed(), board.mapped()), (vec![], 0));
}

#[test]
fn a_host_out_of_memory_leaks_no_vector() {
    let (board, device, block) = Board::with_block();
    board.kernel.limit_host(Some(0));
    assert_eq!(refusal(&board.bus, &block), "the host refused");
    board.kernel.limit_host(None);
    assert!(board.bus.compose(&block, 0).is_ok());
    board.bus.free(&device, block);
    assert!(board.gic.claimed().is_empty());
}

#[test]
fn close_without_memory_fails_but_masks_vectors() {
    let (board, device, block, _) = Board::with_vector();
    let closed = with_allocations(0, || board.bus.close());
    assert_eq!(closed, Err(VpciError::NoMemory));
    assert!(!board.gic.spi(block.first().get()).enabled);
    with_allocations(0, || board.bus.free(&device, block));
    assert!(board.gic.claimed().is_empty());
}
