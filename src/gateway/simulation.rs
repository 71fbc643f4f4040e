//! Simulated lives of the whole gateway, one for each seed, with everything that can race racing.
//!
//! What runs is what runs in production: admission and the response (`ingress`, from where a request was found admissible),
//! the path of a request (`pep`), the state and its versions, the log with its recovery, the airlock, the lease pool and
//! hyper's client. What is simulated is around it: the disk, the upstream and the wire to it, the clocks, operators,
//! clients, and when each of them does what. It all runs in one thread, with a clock that goes on only when nothing else
//! does, and the dice are thrown in the order in which things happen: the same seed is the same run, byte for byte.
//!
//! ```text
//! script    what happens and when, from the seed
//! world     what outlives the process: disk, clock, upstream, script
//! life      one life of the process, from its start to its stop, its death, or a poisoned log
//! client, operators, upstream   those who act
//! journal   what happened, in order
//! auditor   whether that may happen, on its own reading of disk and wire
//! coverage  how often what is tested did happen
//! wirings   gateways that are wired wrong, in which the auditor must find something
//! ```

mod auditor;
mod client;
mod coverage;
mod journal;
mod life;
mod log;
mod operators;
mod script;
mod tests;
mod upstream;
mod wirings;
mod world;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use auditor::{Audit, Violation};
use coverage::Coverage;
use journal::{Happened, How, What};
use script::Event;
use wirings::{Hears, Wiring};
use world::World;

use crate::authority::{Fold, Versions};
use crate::ledger::Closed;
use crate::ledger::stepped::Stepped;

/// Lives that one script can ask for, and more: a process that does not come to its script's end would start for ever.
const LIVES_MAX: usize = 12;

/// One run, audited.
struct Run {
    happened: Vec<Happened>,
    violations: Vec<Violation>,
    coverage: Coverage,
}

fn run(seed: u64, wiring: Wiring) -> Run {
    let world = World::new(seed, wiring);
    let mut events: VecDeque<(Duration, Event)> = world.script.events.iter().copied().collect();
    for lives in 1.. {
        let Some(how) = life::live(&world, &mut events) else { break };
        if lives == LIVES_MAX {
            world.journal.add(What::Broken(format!("{how:?} for the {lives}th time")));
            break;
        }
        restart(&world, how);
    }
    end(&world);
    let happened = world.journal.take();
    let Audit { violations, coverage } = auditor::audit(&world, &happened);
    Run { happened, violations, coverage }
}

/// The machine goes on, or starts anew as well.
fn restart(world: &World, how: How) {
    if let How::Killed(down_ms) = how {
        world.paused.pass(Duration::from_millis(down_ms));
    }
    match how {
        How::Stopped => {}
        How::Killed(_) | How::Poisoned if world.storage.is_dark() || world.dice(|dice| dice.percent(40)) => {
            world.storage.restart_machine();
        }
        How::Killed(_) | How::Poisoned => world.storage.restart_process(),
    }
}

/// The power is cut, and the log opened once more: what is durable is what counts.
fn end(world: &Arc<World>) {
    world.storage.restart_machine();
    world.storage.set_room(usize::MAX);
    let fold = Fold::new(Versions::new());
    let hears = Arc::new(Hears::new(Arc::clone(&fold), Wiring::Right));
    let opened = Stepped::open(&world.storage, world.seed, world.clock.clone(), hears);
    let (_ledger, stepped, _) = match opened {
        Ok(opened) => opened,
        Err(error) => return world.journal.add(What::Broken(error.to_string())),
    };
    world.journal.add(What::State(life::sums(world, &fold)));
    stepped.begin_close();
    let closed = stepped.close();
    if closed != Closed::Clean {
        world.journal.add(What::Broken(format!("the log closes as {closed:?}")));
    }
}
