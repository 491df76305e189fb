//! Opens the report that the command writes, and the browser inspector that shows it about dropped
//! files, in a real browser: in light and dark color schemes, and in wide and narrow windows. Some
//! names in firmware would be code if they weren't escaped.

mod build;
mod inspector;
mod judge;
mod names;
mod report;
mod trees;

use std::sync::Arc;

use anyhow::Result;
use doorbell_harness::suite::{Case, Shared};
use doorbell_harness::workspace;

pub(crate) use self::build::build;
use self::judge::{MISTAKES, PageJudge, VIEWS, View};
use self::report::PAGES;

pub(crate) fn cases() -> Vec<Case> {
    // The browser is closed after the last case.
    let judge = Arc::new(Shared::new());
    let case = |name: &str, run: fn(&PageJudge) -> Result<()>| case(&judge, name.to_owned(), run);
    let mut cases = vec![
        case("a box shows its route", report::shows_routes),
        case("print is complete", report::prints_everything),
        case("hostile names in a report are text", report::shows_names_as_text),
        case("the inspector loads nothing", inspector::loads_nothing),
        case("keyboard", inspector::is_operated_by_keys),
        case("the command prints the same", inspector::agrees_with_the_command),
        case("unsuitable files are refused", inspector::refuses),
        case("hostile names in the inspector are text", inspector::shows_names_as_text),
        case("time and memory have limits", inspector::stops),
    ];
    for view @ (scheme, width) in VIEWS {
        let case =
            |name: String, run: fn(&PageJudge, &str, View) -> Result<()>, page: &'static str| {
                let name = format!("{name}, {scheme}, {width} pixels");
                self::case(&judge, name, move |judge| run(judge, page, view))
            };
        cases.extend(PAGES.map(|page| case(page.to_owned(), report::passes_audit, page)));
        cases.push(case("findings lead to boxes".into(), report::leads_to_boxes, "mistakes"));
        cases.push(case("drop".into(), inspector::passes_audit, MISTAKES));
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
