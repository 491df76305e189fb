//! Descriptions that cannot be turned into a machine that delivers messages.

use crate::board_trees::{self, its};
use crate::harbour;
use doorbell_machine::{BuildOptions, ControllerChoice, Refusal, build};
use gic_firmware::{Description, Fact, GicVersion, MsiRouting, Region, Status};

fn refused(board: &Description) -> Refusal {
    build(board, &BuildOptions::default()).unwrap_err()
}

#[test]
fn a_gicv2_machine_is_refused() {
    let mut board = harbour();
    board.gic.as_mut().unwrap().version = Fact::stated(GicVersion::V2);
    assert_eq!(
        refused(&board).to_string(),
        format!(
            "{} is a GICv2, and the machine's model is of a GICv3: it can be inspected, not run",
            board_trees::GIC
        )
    );
}

#[test]
fn machines_that_cannot_deliver_messages_are_refused() {
    let [mut gic_disabled, mut without_cpus] = [harbour(), harbour()];
    gic_disabled.gic.as_mut().unwrap().status = Fact::stated(Status::Disabled);
    without_cpus.cpus.clear();
    let mut its_disabled = board_trees::bare(4, 1);
    its_disabled.hosts = vec![board_trees::host(0, MsiRouting::parent(its(0)))];
    its_disabled.controllers[0].status = Fact::stated(Status::Disabled);
    let its_unused = board_trees::bare(4, 1);
    let controllers = vec![its_unused.controllers[0].id.to_string()];
    let none = Refusal::NoController { wanted: ControllerChoice::Auto, others: Vec::new() };
    for (what, board, refusal) in [
        ("no GIC", Description::default(), Refusal::NoGic),
        ("a disabled GIC", gic_disabled, Refusal::GicDisabled(board_trees::GIC.to_owned())),
        ("no CPU", without_cpus, Refusal::NoCpus),
        ("no controller", board_trees::bare(4, 0), none.clone()),
        ("a disabled ITS", its_disabled, none),
        ("an ITS that nobody refers to", its_unused, Refusal::NothingRings { controllers }),
    ] {
        assert_eq!(refused(&board), refusal, "{what}");
    }
}

#[test]
fn overlapping_register_regions_are_named() {
    let mut board = harbour();
    board.gic.as_mut().unwrap().distributor =
        Fact::stated(Region::new(0x0820_0000, 0x1_0000).unwrap());
    let Refusal::Overlap(overlap) = refused(&board) else { panic!("not an overlap") };
    assert_eq!(overlap.first, "the distributor");
    assert!(overlap.second.ends_with("msi-controller@8200000"), "{overlap}");
}
