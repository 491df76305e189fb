use super::*;

const LIMITS: Limits = Limits { cases: 1000, deadline: None, seed: 7 };

#[test]
fn a_model_never_differs_from_itself() {
    let (mut one, mut other) = (Model::with_cpus().unwrap(), Model::with_cpus().unwrap());
    for finding in reset_values(&mut one, &mut other).unwrap() {
        assert_eq!(finding.mismatch, None);
    }
    for each in Family::ALL {
        let finding = family(each, Limits { cases: 100, ..LIMITS }, &mut one, &mut other).unwrap();
        assert_eq!(finding, Finding { agreed: 100, mismatch: None });
    }
}

#[test]
fn every_planted_fault_is_found() {
    for mutant in MUTANTS {
        let with_cpus = mutant.found_by.is_some_and(Family::needs_cpus);
        let mut right = if with_cpus { Model::with_cpus().unwrap() } else { Model::new().unwrap() };
        let found = hunt(mutant, LIMITS, &mut right).unwrap();
        assert!(found.is_some(), "{} is not found", mutant.name);
    }
}

#[test]
fn the_order_of_equal_priorities_is_not_told_but_that_of_others_is() {
    let acknowledged = |pairs: &[(u32, u32)]| -> Vec<Acknowledged> {
        pairs.iter().map(|(priority, intid)| Acknowledged { priority: *priority, intid: *intid }).collect()
    };
    let told = |pairs: &[(u32, u32)]| acknowledge::tell(&acknowledged(pairs));
    assert_eq!(told(&[(0x60, 9), (0x60, 7), (0xa0, 3)]), "acknowledged 0x60:[7, 9] 0xa0:[3]");
    assert_eq!(told(&[(0x60, 7), (0x60, 9), (0xa0, 3)]), told(&[(0x60, 9), (0x60, 7), (0xa0, 3)]));
    assert_ne!(told(&[(0xa0, 3), (0x60, 7)]), told(&[(0x60, 7), (0xa0, 3)]));
}

#[test]
fn what_is_found_is_made_small() {
    let mutant = MUTANTS.iter().find(|mutant| mutant.name == "fewer priority bits").unwrap();
    let found = family(Family::Wired, LIMITS, &mut mutant.model().unwrap(), &mut Model::new().unwrap());
    let found = found.unwrap().mismatch.unwrap();
    // The two writes that every case begins with, one write of a priority, and the read that shows it.
    assert_eq!(found.script.len(), 4, "{found}");
}

#[test]
fn a_difference_leaves_out_its_own_bits_alone() {
    let values = |ours, theirs| difference::Values { ours, theirs };
    let agree = |at, width, values| difference::agree(at, width, difference::Moment::Later, values);
    // GICD_TYPER.RSS, and a neighbour.
    assert!(agree(0x0800_0004, Width::Word, values(1 << 26, 0)));
    assert!(!agree(0x0800_0004, Width::Word, values(1 << 25, 0)));
    // The upper half of GITS_TYPER holds CIL; GITS_IIDR beside it nothing.
    assert!(agree(0x0808_000c, Width::Word, values(0, 0x1f)));
    assert!(!agree(0x0808_0004, Width::Word, values(0, 0x1f)));
    // Quiescence, once both are enabled.
    assert!(agree(0x0808_0000, Width::Word, values(1, 1 << 31 | 1)));
    assert!(!agree(0x0808_0000, Width::Word, values(0, 1 << 31)));
    // A page size, before software has written it.
    assert!(!agree(0x0808_0100, Width::Double, values(0, 1 << 9)));
    assert!(difference::agree(0x0808_0108, Width::Double, difference::Moment::AfterReset, values(0, 1 << 9)));
}

#[test]
fn the_documentation_has_every_difference_and_every_input_that_is_not_sent() {
    let text = include_str!("../../../docs/differential.md");
    for difference in DIFFERENCES {
        assert!(text.contains(difference.name), "{}", difference.name);
        assert!(text.contains(difference.section), "{}", difference.section);
    }
    for input in NOT_SENT {
        assert!(text.contains(input.what), "{}", input.what);
        assert!(text.contains(input.section), "{}", input.section);
    }
}
