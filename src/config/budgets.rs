//! `budgets`: the counters of a surface, and that every request which draws on them can.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::{TZ_VARIANTS, Tz};

use super::fields;
use super::reader::{Reader, nearest};
use super::route::RouteConfig;
use super::yaml::{At, Node};
use crate::authority::{Amount, BudgetRule, CalendarUnit, InputPointer, Window, parse_amount};
use crate::canonical::{BodyRules, Required};
use crate::limits;
use crate::model::{ActionName, Pointer, unescape_pointer};

/// A budget, and where its parts stand.
#[derive(Debug)]
pub struct Declared {
    rule: BudgetRule,
    pointers: Vec<(At, InputPointer)>,
    actions: Vec<(At, ActionName)>,
}

impl Declared {
    pub fn into_rule(self) -> BudgetRule {
        self.rule
    }
}

pub fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Declared>> {
    let items = reader.items(node, "budgets")?;
    if items.len() > limits::BUDGETS_MAX {
        reader.error(node.at, format!("more than {} budgets", limits::BUDGETS_MAX));
        return None;
    }
    let mut budgets: Vec<Declared> = Vec::new();
    for item in items {
        let Some(budget) = read_budget(reader, item) else { continue };
        let name = &budget.rule.name;
        if budgets.iter().any(|other| other.rule.name == *name) {
            reader.error(item.at, format!("another budget of this surface is called `{name}`"));
        }
        budgets.push(budget);
    }
    Some(budgets)
}

fn read_budget(reader: &mut Reader<'_>, node: &Node) -> Option<Declared> {
    let fields = reader.fields(node, &fields::BUDGET)?;
    let name = fields.optional("name").and_then(|n| reader.name(n));
    let key = match fields.optional("key") {
        Some(n) => read_key(reader, n),
        None => Some(Vec::new()),
    };
    let at = fields.optional("amount").map_or(fields.at, |n| n.at);
    let amount = reader.text_or_default(&fields, "amount", "a decimal or a pointer");
    let amount = amount.and_then(|text| read_amount(reader, at, text));
    let window = fields.optional("window").and_then(|n| read_window(reader, n));
    let unit = fields.optional("unit").and_then(|n| read_unit(reader, n));
    let actions = match fields.optional("actions") {
        Some(n) => read_actions(reader, n).map(Some),
        None => Some(None),
    };
    let (key, amount) = (key?, amount?);
    let mut pointers = key.clone();
    if let Amount::At(pointer) = &amount {
        pointers.push((at, pointer.clone()));
    }
    let key = key.into_iter().map(|(_, pointer)| pointer).collect();
    let actions = actions?;
    let names = actions.as_ref().map(|actions| actions.iter().map(|(_, name)| name.clone()).collect());
    let (name, window, unit) = (name?, window?, unit?);
    let rule = BudgetRule { name, key, amount, window, unit, actions: names };
    Some(Declared { rule, pointers, actions: actions.unwrap_or_default() })
}

fn read_key(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(At, InputPointer)>> {
    let texts = reader.texts(node, "pointers")?;
    if texts.len() > limits::BUDGET_KEY_POINTERS_MAX {
        reader.error(node.at, format!("more than {} pointers", limits::BUDGET_KEY_POINTERS_MAX));
        return None;
    }
    let mut pointers: Vec<(At, InputPointer)> = Vec::new();
    for (at, text) in texts {
        let pointer = read_pointer(reader, at, text)?;
        if pointers.iter().any(|(_, other)| *other == pointer) {
            reader.error(at, format!("`{pointer}` appears twice"));
        }
        pointers.push((at, pointer));
    }
    Some(pointers)
}

fn read_pointer(reader: &mut Reader<'_>, at: At, text: &str) -> Option<InputPointer> {
    text.parse().map_err(|why| reader.error(at, format!("`{text}`: {why}"))).ok()
}

fn read_amount(reader: &mut Reader<'_>, at: At, text: &str) -> Option<Amount> {
    if text.starts_with('/') {
        return read_pointer(reader, at, text).map(Amount::At);
    }
    let decimal = parse_amount(text).filter(|d| !d.is_sign_negative() && !d.is_zero());
    let amount = decimal.filter(|d| d.scale() <= limits::BUDGET_FRACTION_DIGITS_MAX);
    if amount.is_none() {
        reader.error(
            at,
            format!(
                "`amount` must be a pointer, such as `/request/body/amount`, or a decimal above zero of at most 28 \
                 digits, {} after the point, not `{text}`",
                limits::BUDGET_FRACTION_DIGITS_MAX
            ),
        );
    }
    amount.map(Amount::Fixed)
}

fn read_window(reader: &mut Reader<'_>, node: &Node) -> Option<Window> {
    let fields = reader.fields(node, &fields::BUDGET_WINDOW)?;
    match (fields.optional("calendar"), fields.optional("sliding")) {
        (Some(calendar), None) => {
            let units = [
                ("hour", CalendarUnit::Hour),
                ("day", CalendarUnit::Day),
                ("week", CalendarUnit::Week),
                ("month", CalendarUnit::Month),
            ];
            let unit = reader.one_of(calendar, &units);
            let zone = match fields.optional("zone") {
                Some(n) => read_zone(reader, n),
                None => {
                    reader.error(node.at, "a calendar window needs the field `zone`, such as `UTC`");
                    None
                }
            };
            Some(Window::Calendar { unit: unit?, zone: zone? })
        }
        (None, Some(sliding)) => {
            if fields.optional("zone").is_some() {
                reader.error(fields.place("zone"), "`zone` is of no use with a sliding window");
            }
            read_sliding(reader, sliding).map(Window::Sliding)
        }
        (Some(_), Some(sliding)) => {
            reader.error(sliding.at, "a window is `calendar` or `sliding`, not both");
            None
        }
        (None, None) => {
            reader.error(node.at, "`window` needs the field `calendar` or `sliding`");
            None
        }
    }
}

fn read_zone(reader: &mut Reader<'_>, node: &Node) -> Option<Tz> {
    let text = reader.text(node, "the name of a time zone")?;
    if let Ok(zone) = Tz::from_str(text) {
        return Some(zone);
    }
    let names: Vec<&str> = TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
    let hint = nearest(text, &names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    reader.error(node.at, format!("`{text}` is not in the IANA time zone database{hint}"));
    None
}

/// A whole number and `m`, `h` or `d`.
fn read_sliding(reader: &mut Reader<'_>, node: &Node) -> Option<Duration> {
    const EXPECTED: &str = "a whole number of minutes, hours or days, such as `90m`, `24h` or `7d`";
    let text = reader.text(node, EXPECTED)?;
    let units = [("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];
    let seconds = units.iter().find_map(|(unit, seconds)| {
        let digits = text.strip_suffix(unit)?;
        let is_plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        digits.parse::<u64>().ok().filter(|_| is_plain)?.checked_mul(*seconds)
    });
    match seconds {
        Some(seconds) if (60..=limits::BUDGET_WINDOW_SECONDS_MAX).contains(&seconds) => {
            Some(Duration::from_secs(seconds))
        }
        Some(_) => {
            let most = limits::BUDGET_WINDOW_SECONDS_MAX / (24 * 60 * 60);
            reader.error(node.at, format!("a sliding window has at most {most} days, not `{text}`"));
            None
        }
        None => {
            reader.error(node.at, format!("`sliding` must be {EXPECTED}, not `{text}`"));
            None
        }
    }
}

/// For people, in leaves and lists: nothing that could pass for something else.
fn read_unit(reader: &mut Reader<'_>, node: &Node) -> Option<Arc<str>> {
    let text = reader.text(node, "a unit, such as `EUR`")?;
    if text.len() > limits::BUDGET_UNIT_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let most = limits::BUDGET_UNIT_BYTES_MAX;
        reader.error(node.at, format!("`unit` must be 1 to {most} visible ASCII characters"));
        return None;
    }
    Some(text.into())
}

fn read_actions(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(At, ActionName)>> {
    let items = reader.items(node, "actions")?;
    if items.is_empty() {
        reader.error(node.at, "expected at least one action; leave `actions` out to count every action");
    }
    let mut names: Vec<(At, ActionName)> = Vec::new();
    for item in items {
        let name: ActionName = reader.name(item)?;
        if names.iter().any(|(_, other)| *other == name) {
            reader.error(item.at, format!("`{name}` appears twice"));
        }
        names.push((item.at, name));
    }
    Some(names)
}

/// Every request that draws on a budget has what the budget points to, and nothing of it is kept out of the log: the
/// state keeps a digest of the key and the amount, and both are in leaves.
pub fn check_routes(reader: &mut Reader<'_>, budgets: &[Declared], routes: &[RouteConfig]) {
    for declared in budgets {
        for (at, action) in &declared.actions {
            if !routes.iter().any(|route| route.action == *action) {
                let known: Vec<&str> = routes.iter().map(|route| route.action.as_str()).collect();
                let hint = nearest(action.as_str(), &known);
                let hint = hint.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                reader.error(*at, format!("no route of this surface has the action `{action}`{hint}"));
            }
        }
        for (at, pointer) in &declared.pointers {
            let of_this = |route: &&RouteConfig| declared.rule.is_of(route.action.as_str());
            let problem = routes.iter().filter(of_this).find_map(|route| obstacle(pointer, route));
            if let Some(problem) = problem {
                reader.error(*at, format!("`{pointer}`: {problem}"));
            }
        }
    }
}

/// Why requests to the route cannot draw by this pointer.
fn obstacle(pointer: &InputPointer, route: &RouteConfig) -> Option<String> {
    let steps = unescape_pointer(pointer.as_str())?;
    let steps: Vec<&str> = steps.iter().map(|step| &**step).collect();
    let action = &route.action;
    let withheld = route.rules.redaction.iter().flat_map(|redaction| redaction.pointers());
    if let Some(place) = withheld.into_iter().find(|place| can_be_the_same(place, &steps)) {
        return Some(format!(
            "the action `{action}` keeps `{place}` out of the log, and a budget would keep what is there"
        ));
    }
    let lacks =
        |what: &str| Some(format!("the action `{action}` {what}; name the actions that count in `actions`"));
    match steps[..] {
        ["request", "body", ..] if !is_read(&route.rules.body) => lacks("has no body that policy sees"),
        ["request", "params", name, ..] if !route.path.parameters().any(|own| own == name) => {
            lacks(&format!("has no path parameter `{name}`"))
        }
        ["request", "headers", name, ..] if !route.rules.forward_headers.contains(name) => {
            lacks(&format!("forwards no header `{name}`"))
        }
        ["idempotency_key", ..] if route.rules.idempotency_key != Required::Required => {
            lacks("does not require an idempotency key")
        }
        _ => None,
    }
}

fn can_be_the_same(place: &Pointer, steps: &[&str]) -> bool {
    place.steps().iter().zip(steps).all(|(step, name)| step.fits(name))
}

fn is_read(body: &BodyRules) -> bool {
    match body {
        BodyRules::Json { .. } | BodyRules::Form { .. } => true,
        BodyRules::Opaque { .. } | BodyRules::None => false,
    }
}
