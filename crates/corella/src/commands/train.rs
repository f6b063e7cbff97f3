//! `corella train`: from text to a trained model.

use std::path::{Path, PathBuf};

use corella_text::data::Dataset;
use corella_train::{Outcome, Run, RunPlan, Usage, folder};

use crate::cli::{Common, TrainArgs};
use crate::commands::eval::{load_tasks, task_scores};
use crate::commands::serve::Settings;
use crate::device::Device;
use crate::error::{Failure, Result};
use crate::inputs::{dataset, is_prepared, kept_tokenizer};
use crate::output::deliver;
use crate::signals::{end_at_once, on_stop, stop_flag};
use crate::site::{self, Site};
use crate::training::build::build;
use crate::training::hooks::{Console, Scores};
use crate::training::lines::print_standing;
use crate::training::vocabulary_checks;
use crate::training::wanted::{Wanted, wanted};

/// Runs the command.
pub fn run(args: &TrainArgs, common: &Common) -> Result<()> {
    one_process(|name| std::env::var(name).ok())?;
    // Until there are updates, there is nothing to keep.
    on_stop(|| end_at_once())?;
    // First of all: whether device and address are there is known at once, and the data may take a while.
    let device = Device::choose(common)?;
    args.serve.map(site::check).transpose()?;
    let wanted = wanted(args, common)?;
    let (dir, commands) = (wanted.dir.clone(), wanted.plan.commands.clone());
    let begun = resolve(args, wanted)
        .and_then(|(mut plan, dir, data)| build(&mut plan, dir, data, args.resume, device, args.memory, common.json));
    if let Err(failure) = &begun
        && args.resume
        && failure.is_failure()
    {
        // Who watches a run that goes on looks into its folder, whatever keeps it from beginning.
        corella_train::not_begun(&dir, &commands, failure.message());
    }
    let mut run = begun?;
    let stop = stop_flag(&run.dir)?;
    let site = args.serve.map(|address| Site::of_run(Some(address), &run.dir)).transpose()?;
    let mut hooks = Console::new(&run, common.json);
    hooks.scores = scores(&run.plan)?;
    if let Some(site) = &site {
        site.announce(common.json, &[("live", "run.html")]);
        hooks.watched = Some(site.app());
    }
    let outcome = corella_train::train(&mut run, &mut hooks, &stop)?;
    finish(&run, &outcome, common)?;
    let dir = run.dir.clone();
    // The arenas of training go before the model is loaded for the playground.
    drop((run, hooks));
    match site {
        Some(site) if outcome.finished => {
            if !common.json {
                // For programs it is where it was, and the last line is the result.
                site.announce(false, &[("playground", "")]);
            }
            site.serve(&Settings::of_run(&dir, common))
        }
        Some(site) => site.stop().and(Err(Failure::stopped())),
        None if outcome.finished => Ok(()),
        None => Err(Failure::stopped()),
    }
}

/// Refuses to be one of several processes: each would train the whole run, into the same folder. `variable` gives what a
/// launcher has said.
fn one_process(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    // Slurm's number of tasks of a job is there in a script that starts one process too; that of a step is not.
    for name in ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"] {
        if let Some(processes) = variable(name).and_then(|value| value.trim().parse::<u64>().ok()).filter(|n| *n > 1) {
            return Err(Failure::usage(format!(
                "{name} is {processes}: this is one of {processes} processes, and a run has one only, on one card"
            ))
            .hint("start `corella train` once, without torchrun, mpirun or srun; runs over several cards are not built yet"));
        }
    }
    Ok(())
}

/// The tasks to evaluate during training, loaded, as what gives their scores.
fn scores(plan: &RunPlan) -> Result<Option<Scores>> {
    let out = &plan.output;
    if out.eval_every == 0 {
        return Ok(None);
    }
    if out.eval_tasks.is_empty() {
        return Err(Failure::usage("--eval-every has nothing to evaluate").hint("name task files with --eval FILE"));
    }
    let tasks = load_tasks(&out.eval_tasks, out.eval_limit)?;
    // Items that cannot be judged are the same each time, and named once.
    let mut warn = true;
    Ok(Some(Box::new(move |model, tokenizer, stop| {
        task_scores(model, tokenizer, &tasks, stop, std::mem::take(&mut warn)).unwrap_or_default()
    })))
}

fn finish(run: &Run, outcome: &Outcome, common: &Common) -> Result<()> {
    let (plan, dir) = (&run.plan, &run.dir);
    let Usage { gpu_hours, energy_kwh, dollars } = outcome.usage;
    let word = if outcome.finished { "finished" } else { "stopped" };
    if common.json {
        deliver(
            serde_json::json!({"state": word, "step": outcome.step, "tokens": outcome.tokens, "val_loss": outcome.val_loss,
                "checkpoint": outcome.checkpoint.display().to_string(),
                "best": outcome.best.as_ref().map(|(path, val_loss)| serde_json::json!({"checkpoint": path.display().to_string(), "val_loss": val_loss})),
                "standing": outcome.standing, "seconds": outcome.seconds, "gpu_hours": gpu_hours, "dollars": dollars, "energy_kwh": energy_kwh}),
        )?;
    } else {
        println!("{word} after {} steps; {}", outcome.step, outcome.checkpoint.display());
        if let Some((path, loss)) = outcome.best.as_ref().filter(|(path, _)| *path != outcome.checkpoint) {
            println!("lowest validation loss {loss:.4}: {}", path.display());
        }
        print_standing(outcome, run.reference.is_some());
        // Without a measured power the device's limit is counted.
        let most = if plan.cost.watts.is_some() { "" } else { "at most " };
        println!(
            "bill: {} for {} tokens{}{}{}",
            corella_train::console::duration(outcome.seconds),
            outcome.tokens,
            gpu_hours.map(|hours| format!(", {hours:.3} GPU-hours")).unwrap_or_default(),
            energy_kwh.map(|kwh| format!(", {most}{}", corella_train::console::energy(kwh))).unwrap_or_default(),
            dollars.map(|dollars| format!(", ${dollars:.4}")).unwrap_or_default()
        );
        if outcome.finished {
            println!("continue a text with: corella generate {} -p TEXT", dir.display());
        } else {
            println!("go on with: the same command and --resume");
        }
    }
    Ok(())
}

/// The plan, the run folder, and the data.
fn resolve(args: &TrainArgs, wanted: Wanted) -> Result<(RunPlan, PathBuf, Dataset)> {
    let (source, dir) = (wanted.source.clone(), wanted.dir.clone());
    if source.as_os_str().is_empty() {
        return Err(Failure::usage("nothing to train on").hint("corella train FILE.txt, or --data tiny-internet"));
    }
    if is_prepared(&dir) && !args.resume {
        let message = format!("{} holds prepared data: a run needs a folder of its own", dir.display());
        return Err(Failure::usage(message).hint("name another one with --out"));
    }
    folder::check(&dir)?;
    if folder::is_run(&source) && !is_prepared(&source) {
        return Err(Failure::usage(format!("{} is a run, not text to train on", source.display())).hint(format!(
            "go on with it: --out {0} --resume; start from its weights: --init-from {0}",
            source.display()
        )));
    }
    let same =
        |a: &Path, b: &Path| std::fs::canonicalize(a).is_ok_and(|a| std::fs::canonicalize(b).is_ok_and(|b| a == b));
    if source.is_dir() && same(&source, &dir) {
        return Err(Failure::usage(format!("{} holds the texts: a run needs a folder of its own", dir.display()))
            .hint("name another one with --out; one below the texts is not read as one of them"));
    }
    let kept = if args.resume { kept_tokenizer(&dir)? } else { None };
    match &kept {
        _ if is_prepared(&source) => {}
        Some((_, tokenizer)) => vocabulary_checks::kept(args, tokenizer)?,
        None => vocabulary_checks::named_tokenizer(args, &wanted)?,
    }
    let plan = &wanted.plan;
    let tokenizer = kept.map_or_else(|| plan.data.tokenizer.clone(), |(path, _)| path.display().to_string());
    let data = dataset(&source, &tokenizer, plan.model.vocab_size, plan.train.seed, &dir)?;
    vocabulary_checks::data(args, &wanted, &data)?;
    let nobodys = !wanted.from_file && args.tokenizer.is_none();
    let mut plan = wanted.plan;
    if is_prepared(&source) && nobodys {
        // The folder has its own: a default must not be recorded as the run's.
        plan.data.tokenizer = "own".to_owned();
    }
    plan.model.vocab_size = data.tokenizer.vocab_size();
    Ok((plan, dir, data))
}
