//! Opens the report that the command writes, and the browser inspector that shows it about dropped
//! files, in a real browser. Some names in firmware would be code if they weren't escaped.

mod inspector;
mod judge;
mod names;
mod report;
mod trees;

use std::sync::Arc;

use anyhow::Result;
use doorbell_harness::suite::{Case, Shared};
use doorbell_harness::workspace;

use self::judge::PageJudge;
pub(crate) use self::judge::build;
use self::report::PAGES;

pub(crate) fn cases() -> Vec<Case> {
    // The browser is closed after the last case.
    let judge = Arc::new(Shared::new());
    let case = |name: &str, run: fn(&PageJudge) -> Result<()>| case(&judge, name.to_owned(), run);
    let mut cases = vec![
        case("findings lead to boxes", report::leads_to_boxes),
        case("hostile names in a report are text", report::shows_names_as_text),
        case("the inspector loads nothing", inspector::loads_nothing),
        case("drop", inspector::shows_a_dropped_file),
        case("the command prints the same", inspector::agrees_with_the_command),
        case("unsuitable files are refused", inspector::refuses),
        case("hostile names in the inspector are text", inspector::shows_names_as_text),
        case("time and memory have limits", inspector::stops),
    ];
    for page in PAGES {
        let run = move |judge: &PageJudge| report::loads_alone(judge, page);
        cases.push(self::case(&judge, page.to_owned(), run));
    }
    for (name, tree) in trees::ALL {
        let run = move |judge: &PageJudge| inspector::stays_alive(judge, name, &tree());
        cases.push(self::case(&judge, format!("hostile {name}"), run));
    }
    drop(judge);
    cases
}

fn case(
    judge: &Arc<Shared<PageJudge>>,
    name: String,
    run: impl FnOnce(&PageJudge) -> Result<()> + Send + 'static,
) -> Case {
    let judge = Arc::clone(judge);
    Case::of(name, move || run(judge.get(|| PageJudge::start(workspace::this()?))?))
}
