//! Who gets places and pages, and when.

use super::*;

fn ended(result: &Shared) -> bool {
    result.lock().expect("unpoisoned").1
}

#[test]
fn many_samples_of_one_request_do_not_keep_another_waiting() {
    let mut rig = Rig::new(limits(64, 4, 32), 2);
    let (many, _) = rig.add(&RequestParams { n: 8, ..plain(vec![1, 2, 3], 5) });
    rig.step();
    let (single, _) = rig.add(&plain(vec![4, 5, 6], 5));
    while !ended(&single) {
        rig.step();
    }
    // The first two samples had both places when the single request came.
    let choices = many.lock().expect("unpoisoned").0.choices.iter().filter(|choice| choice.reason.is_some()).count();
    assert!(choices <= 3, "{choices} of the samples had ended");
    rig.run();
}

#[test]
fn many_prompts_of_one_submission_do_not_keep_another_waiting() {
    let mut rig = Rig::new(limits(64, 4, 32), 4);
    let many: Vec<RequestParams> =
        (0..32).map(|i| RequestParams { n: 64, ..plain(vec![i % 12, i / 12, 3], 3) }).collect();
    let results = rig.add_together(&many);
    for _ in 0..7 {
        rig.step();
    }
    let newcomer = plain(vec![4, 5, 6], 3);
    let (single, _) = rig.add(&newcomer);
    let under_way = |rig: &Rig| rig.scheduler.running.iter().map(|seq| seq.age()).collect::<Vec<_>>();
    let before = under_way(&rig);
    let admitted = loop {
        rig.step();
        let now: Vec<_> = under_way(&rig).into_iter().filter(|age| !before.contains(age)).collect();
        if !now.is_empty() {
            break now;
        }
    };
    assert!(admitted.contains(&(32, 0)), "{admitted:?} came before it");
    rig.run();
    check(&newcomer, &single.lock().expect("unpoisoned").0);
    for (params, result) in many.iter().zip(&results) {
        check(params, &result.lock().expect("unpoisoned").0);
    }
}

#[test]
fn of_one_submission_the_prompt_with_the_fewest_under_way_is_next() {
    let mut rig = Rig::new(limits(64, 4, 32), 4);
    let prompts: Vec<RequestParams> = (0..3).map(|i| RequestParams { n: 6, ..plain(vec![i, 2, 3], 5) }).collect();
    rig.add_together(&prompts);
    rig.step();
    // The fourth place is that of a second sample, as nobody else waits.
    let under_way: Vec<u64> = rig.scheduler.running.iter().map(|seq| seq.job).collect();
    assert_eq!(under_way, [0, 0, 1, 2]);
    // Places that have become free are filled at the begin of a step.
    for _ in 0..12 {
        rig.step();
        let mut counts = [0; 3];
        rig.scheduler.running.iter().for_each(|seq| counts[seq.job as usize] += 1);
        let full = counts.iter().sum::<usize>() == 4;
        assert!(!full || counts.iter().all(|count| (1..=2).contains(count)), "{counts:?}");
    }
    rig.run();
}

#[test]
fn samples_take_pages_though_another_prompt_of_the_submission_waits() {
    let mut rig = Rig::new(limits(15, 4, 64), 8);
    // Eight pages until its second token; the second prompt of the others does not fit beside it.
    rig.add(&plain((0..30).map(|i| i % 12).collect(), 2));
    rig.step();
    rig.add_together(&[
        RequestParams { n: 3, ..plain(vec![7; 6], 20) },
        plain((0..28).map(|i| i * 5 % 12).collect(), 1),
    ]);
    rig.step();
    assert_eq!((rig.metrics.running.get(), rig.metrics.waiting.get()), (3, 1));
    rig.run();
}

#[test]
fn samples_leave_pages_to_requests_that_wait() {
    let mut rig = Rig::new(limits(15, 4, 64), 8);
    // Eight pages until its second token.
    rig.add(&plain((0..30).map(|i| i % 12).collect(), 2));
    rig.step();
    // Two pages of seven, and one more for each further sample; the next request needs seven for itself.
    rig.add(&RequestParams { n: 6, ..plain(vec![7; 6], 20) });
    let (waits, _) = rig.add(&plain((0..28).map(|i| i * 5 % 12).collect(), 1));
    rig.step();
    assert_eq!(rig.metrics.completed.get(), 1, "the first request is done");
    assert!(!ended(&waits), "there were no pages for it");
    rig.step();
    assert!(ended(&waits), "the pages of the first request are its own");
    rig.run();
}

#[test]
fn half_of_a_step_is_left_for_prompts() {
    let mut rig = Rig::new(limits(64, 4, 8), 8);
    let results: Vec<Shared> = (0..6).map(|i| rig.add(&plain(vec![i, 2, 3], 20)).0).collect();
    let mut most = 0;
    while !rig.scheduler.idle() {
        rig.step();
        most = most.max(rig.metrics.running.get());
    }
    assert_eq!(most, 4);
    assert!(results.iter().all(ended));
}

#[test]
fn requests_that_fit_only_one_after_another_do_not_push_each_other_out() {
    let mut rig = Rig::new(limits(15, 4, 64), 4);
    // Eight pages each.
    for i in 0..3 {
        rig.add(&plain((0..30).map(|k| (k * 5 + i) % 12).collect(), 2));
    }
    rig.run();
    assert_eq!((rig.metrics.completed.get(), rig.metrics.preemptions.get()), (3, 0));
}

#[test]
fn the_beginnings_of_texts_stay_known_longest() {
    let mut rig = Rig::new(limits(10, 4, 64), 4);
    let mut run = |prompt: Vec<u32>| {
        let before = rig.model.fed;
        let (result, _) = rig.add(&plain(prompt, 1));
        rig.run();
        let cached = result.lock().expect("unpoisoned").0.usage.cached_tokens;
        (rig.model.fed - before, cached)
    };
    let long: Vec<u32> = (0..32).map(|i| i % 11).collect();
    assert_eq!(run(long.clone()), (32, 0));
    // Four pages: two were never used, the others are the last two of the eight.
    assert_eq!(run(vec![11; 14]), (14, 0));
    assert_eq!(run(long), (8, 24));
}

#[test]
fn a_prompt_that_gave_its_pages_up_finds_no_more_of_itself_than_there_was() {
    let mut rig = Rig::new(limits(15, 4, 8), 2);
    let prompt: Vec<u32> = (0..52).map(|i| i * 5 % 12).collect();
    rig.add(&plain(prompt[..8].to_vec(), 1));
    rig.run();
    let known = rig.metrics.cached_tokens.get();
    // It grows into the last pages while the other reads.
    rig.add(&plain(vec![1, 2, 3], 20));
    let seen: Arc<Mutex<(Completion, Vec<usize>)>> = Arc::default();
    let kept = seen.clone();
    let sink = move |event| {
        let mut kept = kept.lock().expect("unpoisoned");
        if let Event::Progress { done, .. } = event {
            kept.1.push(done);
        }
        kept.0.add(event);
        true
    };
    rig.add_to(&plain(prompt.clone(), 1), Box::new(sink));
    rig.run();
    assert_eq!(rig.metrics.preemptions.get(), 1, "it gave way while it read");
    let (completion, progress) = &*seen.lock().expect("unpoisoned");
    assert_eq!((known, completion.usage.cached_tokens, rig.metrics.cached_tokens.get()), (0, 8, 8));
    assert!(progress.is_sorted_by(|a, b| a < b) && progress.last() == Some(&52), "{progress:?}");
}

#[test]
fn tokens_count_as_cached_only_where_a_prompt_is_first_read() {
    let mut rig = Rig::new(limits(64, 4, 64), 1);
    let (result, _) = rig.add(&RequestParams { n: 3, ..plain((0..38).map(|i| i % 11).collect(), 3) });
    rig.run();
    // The other samples wait for the place, then find nine of ten pages: each reads two tokens and its first own one, and
    // its second.
    assert_eq!(rig.model.fed, 38 + 2 + 2 * (3 + 1));
    assert_eq!((result.lock().expect("unpoisoned").0.usage.cached_tokens, rig.metrics.cached_tokens.get()), (0, 0));
}
