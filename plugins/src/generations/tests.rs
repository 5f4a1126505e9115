//! Generations of small scripts on one shard.

use base::{ClientId, Message, MessageId, MonoMillis, Now, Qos, QueueId, ShardId, TopicName, WallMillis};
use broker::api::Principal;
use broker::hooks::{Decision, Hooks, Peer, Stamp};
use bytes::Bytes;

use super::*;
use crate::{PluginName, Set, Source};

const NOW: Now = at(0);

const fn at(ms: u64) -> Now {
    Now { mono: MonoMillis(1_000_000 + ms), wall: WallMillis(1_700_000_000_000 + ms) }
}

fn set(scripts: &[(&str, &str)]) -> Set {
    let source =
        |(name, text): &(&str, &str)| Source::new(PluginName::new(name).expect("a name"), format!("{name}.lua"), *text);
    Set::from_sources(scripts.iter().map(source).collect()).expect("different names")
}

/// One plugin, `a`.
fn prepared(generation: u32, text: &str) -> Prepared {
    prepared_set(generation, &[("a", text)])
}

fn prepared_set(generation: u32, scripts: &[(&str, &str)]) -> Prepared {
    let limits = Limits { quarantine_after: 5, ..Limits::default() };
    let compiled = set(scripts).compile(&limits).expect("it compiles");
    Prepared {
        generation,
        compiled,
        limits,
        mode: Mode::Replace,
        budget: None,
        disabled: BTreeSet::new(),
        is_rollback: false,
    }
}

fn shard() -> Plugins {
    Plugins::new(ShardId(0))
}

fn run(plugins: &Plugins, prepared: Prepared) {
    let generation = prepared.generation;
    plugins.prepare(NOW, Arc::new(prepared)).expect("it is ready");
    assert!(plugins.commit(NOW, generation));
}

fn message(topic: &str, payload: &str) -> Message {
    Message {
        id: MessageId(7),
        topic: TopicName::new(topic).expect("a topic"),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    }
}

/// What becomes of a message of this client: the stamp, and the topics that it goes on to.
fn published_by(plugins: &Plugins, now: Now, client: &str) -> (u32, String) {
    let (client, principal) = (ClientId::from(client), Principal::default());
    let from = Peer { client: &client, principal: &principal, is_application: false };
    let (stamp, answer) = plugins.clone().publish(now, &message("t", "p"), from);
    let topics = match answer.answer {
        Decision::Keep => "t".to_owned(),
        Decision::Replace(messages) => {
            messages.iter().map(|message| message.topic.as_str()).collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    };
    (stamp.0, topics)
}

fn published(plugins: &Plugins) -> (u32, String) {
    published_by(plugins, NOW, "client")
}

/// Who of a, b and c does not get a message under this stamp.
fn left_out(plugins: &Plugins, stamp: u32) -> Vec<usize> {
    let clients = ["a", "b", "c"].map(ClientId::from);
    let to: Vec<&ClientId> = clients.iter().collect();
    plugins.clone().deliver(NOW, Stamp(stamp), &message("t", "p"), &to)
}

fn to(topic: &str) -> String {
    format!("return {{ route = function(message) message.topic = {topic:?} end }}")
}

fn leaving_out(place: usize) -> String {
    format!("return {{ on_deliver = function(message, clients) return {{ [{}] = false }} end }}", place + 1)
}

const COUNTING: &str = "local seen = 0
return {
  route = function(message) seen = seen + 1; message.topic = 'seen/' .. seen end,
  on_save = function() return { seen = seen } end,
  on_load = function(previous) seen = previous and previous.seen or 0 end,
}";

#[test]
fn without_plugins_everything_is_kept() {
    let plugins = shard();
    assert_eq!(published(&plugins), (0, "t".to_owned()));
    assert!(!plugins.wants_deliveries(Stamp(0), "t") && left_out(&plugins, 0).is_empty());
    assert_eq!(plugins.report(), Report::default());
}

#[test]
fn a_stamp_is_handled_by_its_generation_until_that_is_settled() {
    let plugins = shard();
    run(&plugins, prepared(1, &leaving_out(0)));
    assert_eq!(published(&plugins).0, 1);
    plugins.prepare(NOW, Arc::new(prepared(2, &leaving_out(1)))).expect("it is ready");
    assert_eq!(published(&plugins).0, 1, "not yet");
    assert!(plugins.commit(NOW, 2) && !plugins.commit(NOW, 3));
    assert_eq!(published(&plugins).0, 2);
    assert_eq!([1, 2].map(|stamp| left_out(&plugins, stamp)), [[0], [1]]);
    plugins.settled(1);
    assert_eq!((left_out(&plugins, 1), plugins.report().generations), (vec![0], 2), "2 is not over");
    plugins.settled(2);
    assert_eq!((plugins.report().generations, plugins.report().strays), (1, 0));
    assert_eq!(left_out(&plugins, 1), [1], "a stray is asked of who is left");
    assert_eq!(plugins.report().strays, 1);
}

/// Another shard has committed, this one has not: what comes from there is handled as it was there.
#[test]
fn what_is_ready_handles_its_stamps_before_the_commit_here() {
    let plugins = shard();
    run(&plugins, prepared(1, &leaving_out(0)));
    plugins.prepare(NOW, Arc::new(prepared(2, &leaving_out(1)))).expect("it is ready");
    assert!(plugins.wants_deliveries(Stamp(2), "t"));
    assert_eq!(published(&plugins).0, 1, "nobody has come");
    assert_eq!((left_out(&plugins, 2), plugins.report().strays), (vec![1], 0));
    assert_eq!(published(&plugins).0, 2, "it is decided");
    assert!(plugins.commit(NOW, 2), "the coordinator's word is late");
    plugins.prepare(NOW, Arc::new(prepared(3, &leaving_out(2)))).expect("it is ready");
    plugins.discard(3);
    assert!(!plugins.commit(NOW, 3));
    assert_eq!((published(&plugins).0, left_out(&plugins, 1)), (2, vec![0]));
}

#[test]
fn state_is_handed_over_with_what_came_after_the_preparation() {
    let plugins = shard();
    run(&plugins, prepared(1, COUNTING));
    published(&plugins);
    plugins.prepare(NOW, Arc::new(prepared(2, &COUNTING.replace("seen/", "new/")))).expect("it is ready");
    assert_eq!(published(&plugins), (1, "seen/2".to_owned()));
    plugins.commit(NOW, 2);
    assert_eq!(published(&plugins), (2, "new/3".to_owned()));
}

#[test]
fn state_that_can_t_be_taken_over_refuses_a_reload_but_no_way_back() {
    let plugins = shard();
    run(&plugins, prepared(1, COUNTING));
    published(&plugins);
    let picky = COUNTING.replace("seen = previous and", "if previous then error('no') end seen = previous and");
    let failures = plugins.prepare(NOW, Arc::new(prepared(2, &picky))).expect_err("it does not take it");
    assert!(failures[0].to_string().contains("no"), "{}", failures[0]);
    assert_eq!(published(&plugins), (1, "seen/2".to_owned()));
    run(&plugins, Prepared { is_rollback: true, ..prepared(3, &picky) });
    assert_eq!(published(&plugins), (3, "seen/1".to_owned()), "without the state");
    // And from one that can't even be asked for it.
    let silent = COUNTING.replace("return { seen = seen }", "error('no')");
    run(&plugins, Prepared { is_rollback: true, ..prepared(4, &silent) });
    assert!(plugins.prepare(NOW, Arc::new(prepared(5, COUNTING))).is_err());
    run(&plugins, Prepared { is_rollback: true, ..prepared(6, COUNTING) });
    assert_eq!(published(&plugins), (6, "seen/1".to_owned()));
}

/// Who goes back, and whose state can't be had at the commit, has that of the preparation; it began without.
#[test]
fn a_way_back_that_fails_at_the_commit_keeps_the_state_of_the_preparation() {
    let plugins = shard();
    let fails_later = COUNTING.replace("return { seen", "if seen > 2 then error('no') end return { seen");
    run(&plugins, prepared(1, &fails_later));
    (0..2).for_each(|_| drop(published(&plugins)));
    let back = Prepared { is_rollback: true, ..prepared(2, COUNTING) };
    plugins.prepare(NOW, Arc::new(back)).expect("it is ready");
    assert_eq!(published(&plugins), (1, "seen/3".to_owned()));
    assert!(plugins.commit(NOW, 2));
    assert_eq!(published(&plugins), (2, "seen/3".to_owned()), "two were seen at the preparation");
}

#[test]
fn a_way_back_takes_over_a_state_that_can_be_had_only_at_the_commit() {
    let plugins = shard();
    let fails_first = COUNTING.replace("return { seen", "if seen < 2 then error('not yet') end return { seen");
    run(&plugins, prepared(1, &fails_first));
    published(&plugins);
    let back = Prepared { is_rollback: true, ..prepared(2, COUNTING) };
    plugins.prepare(NOW, Arc::new(back)).expect("it is ready");
    published(&plugins);
    assert!(plugins.commit(NOW, 2));
    assert_eq!(published(&plugins), (2, "seen/3".to_owned()));
}

#[test]
fn state_that_comes_about_after_the_preparation_is_handed_over_too() {
    let plugins = shard();
    let late = COUNTING.replace("return { seen = seen }", "return seen > 0 and { seen = seen } or nil");
    run(&plugins, prepared(1, &late));
    plugins.prepare(NOW, Arc::new(prepared(2, &late))).expect("it is ready");
    published(&plugins);
    assert!(plugins.commit(NOW, 2));
    assert_eq!(published(&plugins), (2, "seen/2".to_owned()));
}

/// What is stamped by nobody while an empty set rests is handled by that set, also after the next one has come.
#[test]
fn an_empty_set_that_has_settled_rests() {
    let plugins = shard();
    assert!(plugins.rests(), "none yet");
    run(&plugins, prepared(1, &leaving_out(0)));
    assert!(!plugins.rests());
    plugins.settled(1);
    assert!(!plugins.rests());
    run(&plugins, prepared_set(2, &[]));
    assert!(!plugins.rests(), "1 may be asked yet");
    plugins.settled(2);
    assert!(plugins.rests() && plugins.rests());
    plugins.prepare(NOW, Arc::new(prepared(3, &leaving_out(1)))).expect("it is ready");
    assert!(!plugins.rests());
    assert!(plugins.commit(NOW, 3));
    assert_eq!([0, 2, 3].map(|stamp| left_out(&plugins, stamp)), [vec![], vec![], vec![1]]);
    plugins.settled(3);
    assert_eq!(left_out(&plugins, 0), [1], "of now");
}

#[test]
fn what_is_stored_is_of_the_shard() {
    let script = |topic: &str| {
        format!(
            "return {{ route = function(message)
               local seen = (postroad.store.get('seen') or 0) + 1
               postroad.store.set('seen', seen)
               message.topic = '{topic}' .. seen
             end }}"
        )
    };
    let plugins = shard();
    run(&plugins, prepared(1, &script("old/")));
    published(&plugins);
    run(&plugins, Prepared { mode: Mode::Shadow, ..prepared(2, &script("new/")) });
    assert_eq!(published(&plugins), (1, "old/2".to_owned()), "the shadow has a copy");
    assert_eq!(published(&plugins), (1, "old/3".to_owned()));
    run(&plugins, prepared(3, &script("new/")));
    assert_eq!(published(&plugins), (3, "new/4".to_owned()));
    plugins.settled(3);
    assert_eq!(published(&plugins), (3, "new/5".to_owned()));
    run(&plugins, prepared_set(4, &[("b", "return {}")]));
    run(&plugins, prepared(5, &script("again/")));
    assert_eq!(published(&plugins), (5, "again/6".to_owned()), "3 is not settled");
    run(&plugins, prepared_set(6, &[("b", "return {}")]));
    plugins.settled(6);
    run(&plugins, prepared(7, &script("anew/")));
    assert_eq!(published(&plugins), (7, "anew/1".to_owned()), "it had ended with its plugin");
}

/// What comes from a shard that had no plugins is handled by none until they are settled; then what nobody was asked about is handled
/// by the generation of now.
#[test]
fn what_nobody_was_asked_about_is_of_now() {
    let plugins = shard();
    run(&plugins, prepared(1, &leaving_out(0)));
    assert_eq!(left_out(&plugins, 0), [0; 0]);
    plugins.settled(1);
    assert_eq!(left_out(&plugins, 0), [0]);
    run(&plugins, prepared(2, &leaving_out(1)));
    assert_eq!((left_out(&plugins, 0), plugins.report().strays), (vec![1], 0));
}

#[test]
fn a_canary_is_asked_for_its_part_of_the_clients_always_the_same_ones() {
    let plugins = shard();
    run(&plugins, prepared(1, &to("old")));
    run(&plugins, Prepared { mode: Mode::Canary { percent: 30 }, ..prepared(2, &to("new")) });
    let names: Vec<String> = (0..1000).map(|number| format!("client-{number}")).collect();
    let stamps = || names.iter().map(|name| published_by(&plugins, NOW, name)).collect::<Vec<_>>();
    let first = stamps();
    let in_canary = first.iter().filter(|(stamp, topic)| (*stamp, topic.as_str()) == (2, "new")).count();
    let others = first.iter().filter(|(stamp, topic)| (*stamp, topic.as_str()) == (1, "old")).count();
    assert!((250..350).contains(&in_canary) && in_canary + others == 1000, "{in_canary} of 1000, and {others}");
    assert_eq!(stamps(), first);
    assert!(plugins.promote(NOW) && !plugins.promote(NOW));
    assert!(stamps().iter().all(|(stamp, topic)| (*stamp, topic.as_str()) == (2, "new")));
    assert_eq!(plugins.report().generations, 2, "the old one waits for its stamps");
    plugins.settled(2);
    assert_eq!(plugins.report().generations, 1);
}

#[test]
fn an_aborted_canary_handles_what_it_has_stamped() {
    let plugins = shard();
    run(&plugins, prepared(1, &leaving_out(0)));
    run(&plugins, Prepared { mode: Mode::Canary { percent: 99 }, ..prepared(2, &leaving_out(1)) });
    assert_eq!(left_out(&plugins, 3), [0], "the other shard has heard before");
    assert!(plugins.abort(3) && !plugins.abort(4));
    assert_eq!(published(&plugins).0, 3);
    assert_eq!([1, 2, 3].map(|stamp| left_out(&plugins, stamp)), [[0], [1], [0]]);
    plugins.settled(3);
    assert_eq!((plugins.report().generations, plugins.report().strays), (1, 0));
}

#[test]
fn a_shadow_answers_nobody_and_what_differs_is_counted() {
    let plugins = shard();
    run(&plugins, prepared(1, "return {}"));
    let shadow = |generation, body: &str| {
        let script = format!("return {{ route = function(message) {body} end }}");
        run(&plugins, Prepared { mode: Mode::Shadow, ..prepared(generation, &script) });
        assert_eq!(published(&plugins), (1, "t".to_owned()), "{body}");
        let differences = plugins.report().differences.into_iter().filter(|(_, count)| *count > 0);
        let differences: Vec<_> = differences.map(|(kind, count)| format!("{kind} {count}")).collect();
        assert!(plugins.abort(1)); // the number that answers already, so that it can go on
        differences.join(", ")
    };
    assert_eq!(shadow(2, ""), "");
    assert_eq!(shadow(3, "message.topic = 'u'"), "topic 1");
    assert_eq!(shadow(4, "message.topic = 'u' message.payload = 'q'"), "topic 1, payload 1");
    assert_eq!(shadow(5, "return postroad.drop('no')"), "decision 1");
    assert_eq!(shadow(6, "message:also { topic = 'u', payload = 'q' }"), "targets 1");
    assert_eq!(shadow(7, "message.qos = 0"), "wishes 1");
    assert_eq!(shadow(8, "error('no')"), "error 1");
    assert_eq!(plugins.report().differences, []);
}

fn failing(divisor: u32) -> String {
    format!("local n = 0 return {{ route = function() n = n + 1 if n % {divisor} == 0 then error('no') end end }}")
}

fn watched(generation: u32, text: &str) -> Prepared {
    let budget = Budget { percent: 10, calls_min: 100, probation_ms: 1_000 };
    Prepared { budget: Some(budget), ..prepared(generation, text) }
}

/// A version that the server has crashed in is called in no way, and its hooks are open or closed; no budget is spent for it. Another text of the
/// plugin is called, and so is that one in a generation that lets it off, which loads it.
#[test]
fn what_is_disabled_is_not_called() {
    let plugins = shard();
    let open = "local to
        return { route = function(message) message.topic = to end, on_load = function() to = 'x' end, on_save = function() error('no') end }";
    let closed = "return { route = { on_error = 'closed', run = function() end } }";
    let versions = [open, closed].map(|text| set(&[("a", text)]).sources()[0].hash);
    let disabled = |prepared| Prepared { disabled: versions.into(), ..prepared };
    run(&plugins, disabled(watched(1, open)));
    assert_eq!(published(&plugins), (1, "t".to_owned()));
    assert_eq!(plugins.spent(at(1)), None);
    assert!(plugins.report().plugins[0].is_quarantined);
    run(&plugins, disabled(prepared(2, closed)));
    assert_eq!(published(&plugins), (2, "Refuse(ImplementationSpecificError)".to_owned()));
    run(&plugins, disabled(prepared(3, &format!("{open} -- another text"))));
    assert_eq!(published(&plugins), (3, "x".to_owned()));

    let plugins = shard();
    run(&plugins, disabled(prepared(1, open)));
    run(&plugins, prepared(2, open));
    assert_eq!(published(&plugins), (2, "x".to_owned()));
    for (mode, stamp) in [(Mode::Canary { percent: 99 }, 2), (Mode::Shadow, 1)] {
        let plugins = shard();
        run(&plugins, prepared(1, "return {}"));
        run(&plugins, disabled(Prepared { mode, ..prepared(2, open) }));
        assert_eq!(published(&plugins), (stamp, "t".to_owned()), "{mode:?}");
        assert!(plugins.report().differences.iter().all(|(_, count)| *count == 0), "{mode:?}");
    }
}

#[test]
fn too_many_failures_are_told_once_and_only_during_the_probation() {
    let asked = |divisor, calls, now| {
        let plugins = shard();
        run(&plugins, watched(1, &failing(divisor)));
        (0..calls).for_each(|_| drop(published(&plugins)));
        (plugins.spent(now), plugins)
    };
    assert_eq!(asked(20, 200, at(999)).0, None, "5 % are few");
    assert_eq!(asked(5, 99, at(999)).0, None, "99 calls are few");
    assert_eq!(asked(5, 200, at(1_000)).0, None, "the probation is over");
    let (spent, plugins) = asked(5, 200, at(999));
    let why = "40 of 200 calls failed on shard 0, more than 10 %".to_owned();
    assert_eq!(spent, Some(Spent { generation: 1, why }));
    assert_eq!(plugins.spent(at(999)), None, "once");
}

#[test]
fn a_quarantine_spends_the_budget_of_a_canary_however_late() {
    let plugins = shard();
    run(&plugins, prepared(1, "return {}"));
    run(&plugins, Prepared { mode: Mode::Canary { percent: 99 }, ..watched(2, &failing(1)) });
    (0..5).for_each(|_| drop(published(&plugins)));
    let spent = plugins.spent(at(100_000)).expect("it is quarantined");
    assert_eq!((spent.generation, spent.why.as_str()), (2, "plugin a is quarantined on shard 0"));
}

#[test]
fn what_is_counted_goes_on_over_generations_and_ends_with_the_plugin() {
    let plugins = shard();
    let counting = "return { route = function() postroad.counter('seen'):add(2) end }";
    run(&plugins, prepared_set(1, &[("a", counting), ("b", counting)]));
    published(&plugins);
    run(&plugins, prepared_set(2, &[("a", counting)]));
    published(&plugins);
    let totals = |plugins: &Plugins| {
        let totals = plugins.report().plugins.into_iter();
        totals.map(|one| (one.name, one.hooks[&Hook::Route].calls, one.counters["seen"])).collect::<Vec<_>>()
    };
    assert_eq!(totals(&plugins), [("a".to_owned(), 2, 4), ("b".to_owned(), 1, 2)]);
    plugins.settled(2);
    assert_eq!(totals(&plugins), [("a".to_owned(), 2, 4)]);
}

#[test]
fn generations_that_do_not_settle_are_bounded() {
    let plugins = shard();
    for generation in 1..=4 {
        run(&plugins, prepared(generation, "return {}"));
    }
    let failures = plugins.prepare(NOW, Arc::new(prepared(5, "return {}"))).expect_err("too many");
    assert!(failures[0].message.contains("still under way"), "{}", failures[0]);
    plugins.settled(4);
    run(&plugins, prepared(5, "return {}"));
}
