//! The command line: subcommands and their flags. What they do is in the modules of the same names.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::plugin::{AuthorAction, RecordArgs};

/// A self-hosted push server: stores messages and pushes them until each receiver has acknowledged.
#[derive(Debug, Parser)]
#[command(name = "postroad", version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server in the foreground.
    ///
    /// SIGTERM and SIGINT stop it gracefully, SIGHUP reads the configuration anew. Under systemd it reports
    /// readiness and feeds the watchdog.
    Serve(ConfigArgs),
    /// Check a configuration, or print the one in force.
    CheckConfig(CheckConfigArgs),
    /// Add a user, a password or a device token to an auth.file.
    Passwd(PasswdArgs),
    /// Add a token for callers of the API to an api.tokens_file, or remove one.
    Token(TokenArgs),
    /// Publish through the API: each message is answered with its id once it is stored.
    Publish(Box<PublishArgs>),
    /// See what is to be published later, and take it back, through the API.
    Scheduled(ScheduledArgs),
    /// See clients and what waits for them, register them, or end a connection, through the API.
    Client(ClientArgs),
    /// See topics that have a retained message, through the API.
    Topic(TopicArgs),
    /// See who has subscribed to what, through the API.
    Subscription(SubscriptionArgs),
    /// Read a server's configuration anew, or stop it, through the API.
    Admin(AdminArgs),
    /// Write plugins: make, check, test, measure and try them; see which ones a server runs, have others run in their place, and go back.
    Plugin(PluginArgs),
    /// See dead letters, and say what becomes of them, through the API.
    Dlq(DlqArgs),
    /// Make, look at and empty consumer groups.
    Group(GroupArgs),
    /// Show the life of a message, or watch packets, writes and steps of messages as they happen, through the API.
    Trace(TraceArgs),
    /// Show or follow what becomes of messages whose publishers asked for receipts, through the API.
    Receipts(ReceiptsArgs),
    /// Watch what a server does: rates, times, queues, shards, and the clients that are furthest behind.
    Top(TopArgs),
    /// Publish messages.
    #[command(disable_help_flag = true)]
    Pub(Box<PubArgs>),
    /// Subscribe and print what comes.
    #[command(disable_help_flag = true)]
    Sub(Box<SubArgs>),
    /// Write messages to a file as they come, a line of JSON for each, for postroad plugin try and bench.
    ///
    /// They are taken by a subscription of its own, so nobody loses one by it.
    #[command(disable_help_flag = true)]
    Record(Box<RecordArgs>),
    /// Check whether this machine can run the server, and say what to do if not.
    Doctor(ConfigArgs),
    /// Look at the message log of a stopped server, or repair it.
    Log(LogArgs),
    /// Print a manual page, or write all of them.
    Man(ManArgs),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Configuration file (TOML).
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data directory.
    #[arg(long, short, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Set one option; wins over the file. Can be given many times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Args, Debug)]
pub struct CheckConfigArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the whole configuration in force, commented, as a file.
    #[arg(long)]
    pub print: bool,
}

#[derive(Args, Debug)]
pub struct PasswdArgs {
    /// Name of the user.
    pub name: String,
    /// The auth.file to change; made if it is missing. Without it the entry is printed.
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Add a new device token, print its secret, and store its SHA-256 only.
    #[arg(long, conflicts_with = "delete")]
    pub token: bool,
    /// Put the user into this group too. Can be given many times.
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// Remove the user.
    #[arg(long, requires = "file")]
    pub delete: bool,
}

#[derive(Args, Debug)]
pub struct TokenArgs {
    /// Name of the caller: to the access rules it is a user.
    pub name: String,
    /// The api.tokens_file to change; made if it is missing. Without it the entry is printed.
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Put the caller into this group. Can be given many times.
    #[arg(long, value_name = "GROUP", conflicts_with = "delete")]
    pub group: Vec<String>,
    /// What the token is good for: publish (the default), clients, dead_letters, trace, admin, consume. Can be given many times.
    #[arg(
        long,
        value_name = "RIGHT",
        conflicts_with = "delete",
        value_parser = ["publish", "clients", "dead_letters", "trace", "admin", "consume"],
    )]
    pub right: Vec<String>,
    /// Remove all tokens of this name.
    #[arg(long, requires = "file")]
    pub delete: bool,
}

const RECEIPT_LEVELS: [&str; 4] = ["stored", "sent", "acknowledged", "dead"];

/// How to reach the API.
#[derive(Args, Debug)]
pub struct ApiArgs {
    /// Where the server answers HTTP.
    #[arg(long, env = "POSTROAD_API", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub api: String,
    /// A token of its api.tokens_file. Better in the environment than on the command line, where others see it.
    #[arg(long, env = "POSTROAD_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Print JSON, a line for each thing.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct ScheduledArgs {
    #[command(subcommand)]
    pub action: ScheduledAction,
}

#[derive(Debug, Subcommand)]
pub enum ScheduledAction {
    /// List messages that wait for their time, those of each shard in the order in which they were taken in.
    ///
    /// With the right clients all of them, with publish those that were published under the token's name.
    List {
        #[command(flatten)]
        api: ApiArgs,
        /// Only those whose topic matches.
        #[arg(long, value_name = "FILTER")]
        topic_filter: Option<String>,
        /// Only those of this user; callers of the API are users by the names of their tokens.
        #[arg(long, value_name = "NAME", conflicts_with = "client")]
        user: Option<String>,
        /// Only those of this client, which has proved to be no user.
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
        /// Only those that are due in so many seconds or later.
        #[arg(long, value_name = "SECONDS")]
        due_after: Option<u64>,
        /// Only those that are due before so many seconds have passed.
        #[arg(long, value_name = "SECONDS")]
        due_before: Option<u64>,
        /// Stop after so many.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Take messages back: they are never published.
    Cancel {
        #[command(flatten)]
        api: ApiArgs,
        /// Ids of messages: 32 hexadecimal digits, as publishing answers them.
        #[arg(required = true, value_name = "MESSAGE")]
        messages: Vec<String>,
    },
}

#[derive(Args, Debug)]
pub struct ClientArgs {
    #[command(subcommand)]
    pub action: ClientAction,
}

#[derive(Debug, Subcommand)]
pub enum ClientAction {
    /// List clients: those with a session, then those that are registered and have none.
    List {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        filter: ClientFilter,
        /// Stop after so many.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// List the clients for which most is waiting, the largest backlog first.
    Top {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        filter: ClientFilter,
        /// So many.
        #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1000))]
        limit: u64,
    },
    /// Show all that is known of a client.
    Show {
        #[command(flatten)]
        api: ApiArgs,
        /// Its identifier.
        client: String,
    },
    /// List what waits for a client or is in flight to it, oldest first. Nothing is taken by that.
    Pending {
        #[command(flatten)]
        api: ApiArgs,
        /// Its identifier.
        client: String,
        /// Stop after so many.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Acknowledge deliveries in the place of a client that is not connected: it does not get them.
    Acknowledge {
        #[command(flatten)]
        api: ApiArgs,
        /// Its identifier.
        client: String,
        /// Names of deliveries, such as 0-3-1017.
        #[arg(required = true, value_name = "DELIVERY")]
        deliveries: Vec<String>,
    },
    /// End a client's connection. Its session stays, and it may come back at once.
    Kick {
        #[command(flatten)]
        api: ApiArgs,
        /// Its identifier.
        client: String,
    },
    /// Send a client now what had waited for it, whatever drain.rate, drain.jitter and restart.* say.
    Drain {
        #[command(flatten)]
        api: ApiArgs,
        /// Its identifier.
        client: String,
    },
    /// Make a client addressable by pushes, whether it has ever come or not.
    Register {
        #[command(flatten)]
        api: ApiArgs,
        /// Its identifier.
        client: String,
        /// Whose it is: nobody else may connect as it. Without: whose it is already, or anybody's.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// A group that it is in; it is in no others. Can be given many times.
        #[arg(long, value_name = "NAME")]
        group: Vec<String>,
    },
    /// Forget a client: its connection, session and registration end, and what waited for it. It may come again.
    Unregister {
        #[command(flatten)]
        api: ApiArgs,
        /// Its identifier.
        client: String,
    },
}

#[derive(Args, Debug)]
pub struct TopicArgs {
    #[command(subcommand)]
    pub action: TopicAction,
}

#[derive(Debug, Subcommand)]
pub enum TopicAction {
    /// List topics, those of each shard in the order of their bytes.
    List {
        #[command(flatten)]
        api: ApiArgs,
        /// Only those that match. Without: all but those that begin with $.
        #[arg(long, value_name = "FILTER")]
        filter: Option<String>,
        /// Stop after so many.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
}

#[derive(Args, Debug)]
pub struct SubscriptionArgs {
    #[command(subcommand)]
    pub action: SubscriptionAction,
}

#[derive(Debug, Subcommand)]
pub enum SubscriptionAction {
    /// List subscriptions.
    List {
        #[command(flatten)]
        api: ApiArgs,
        /// Only those of this client.
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
        /// Only those with just this filter.
        #[arg(long, value_name = "FILTER")]
        filter: Option<String>,
        /// Only those to which a message for this topic goes.
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
        /// Stop after so many.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// List filters in order: how many clients have subscribed to each, how many consumer groups, and the filter.
    Filters {
        #[command(flatten)]
        api: ApiArgs,
        /// Only those that begin so.
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
        /// Only those to which a message for this topic goes.
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
        /// Stop after so many.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
}

#[derive(Args, Debug)]
pub struct AdminArgs {
    #[command(subcommand)]
    pub action: AdminAction,
}

#[derive(Debug, Subcommand)]
pub enum AdminAction {
    /// Show how the server is. Needs no token.
    Status {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Read the configuration, users, access rules and tokens anew, and tell what has changed, or why nothing has.
    Reload {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Stop the server gracefully. The command does not wait for its end.
    Drain {
        #[command(flatten)]
        api: ApiArgs,
    },
}

#[derive(Args, Debug)]
pub struct PluginArgs {
    #[command(subcommand)]
    pub action: PluginAction,
}

#[derive(Debug, Subcommand)]
pub enum PluginAction {
    #[command(flatten)]
    Author(AuthorAction),
    #[command(flatten)]
    Online(OnlinePluginAction),
}

/// What is asked of a running server, through the API.
#[derive(Debug, Subcommand)]
pub enum OnlinePluginAction {
    /// List the plugins that run, in the order in which they are asked, with what they hear and how often they failed.
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// List what was tried, the newest first: reloads, rollbacks, trials, and why some were refused.
    History {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Run what is in plugins.dir, on all shards or, if it does not load, on none: then it says why, and nothing is changed.
    Reload {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        trial: TrialArgs,
    },
    /// Run what ran before.
    Rollback {
        #[command(flatten)]
        api: ApiArgs,
        /// A generation of the history that was committed. Without: the one before with other scripts.
        #[arg(long, value_name = "GENERATION", value_parser = clap::value_parser!(u32).range(1..))]
        to: Option<u32>,
    },
    /// Have the generation that is tried, as a canary or a shadow, answer for everybody.
    Promote {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// End a canary or a shadow as if it had not been.
    Abort {
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// How what is new comes to answer; at once if nothing is said.
#[derive(Args, Debug)]
pub struct TrialArgs {
    /// For so many in a hundred clients, by a hash of their names, until promote or abort.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99), conflicts_with = "shadow")]
    pub canary: Option<u8>,
    /// For nobody: it runs after what answers, on a copy, and where it differs is counted, until promote or abort.
    #[arg(long)]
    pub shadow: bool,
}

#[derive(Args, Debug)]
pub struct DlqArgs {
    #[command(subcommand)]
    pub action: DlqAction,
}

#[derive(Debug, Subcommand)]
pub enum DlqAction {
    /// List dead letters, the oldest of each shard first.
    List {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        filter: LetterFilterArgs,
        /// Stop after so many.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Show all that is known of a letter, and its message.
    Show {
        #[command(flatten)]
        api: ApiArgs,
        /// Its name, such as 0-3-1017.
        letter: String,
    },
    /// Send letters again: to their clients, or to whoever subscribes to a topic.
    Requeue(RequeueArgs),
    /// Drop letters.
    Drop {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        choice: LetterChoice,
    },
    /// Keep letters for a human: they are leased to nobody.
    Park {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        choice: LetterChoice,
        /// Why.
        #[arg(long, default_value = "", value_name = "TEXT")]
        note: String,
    },
    /// No human needs to look at them any more.
    Unpark {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        choice: LetterChoice,
    },
    /// Print letters as JSON, one in a line. They stay.
    Export {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        filter: LetterFilterArgs,
    },
    /// Keep the letters of a file as export prints them, as new ones.
    Import {
        #[command(flatten)]
        api: ApiArgs,
        /// The file; - is standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
pub struct RequeueArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(flatten)]
    pub choice: LetterChoice,
    /// Publish to this topic, not to the letter's client.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Time that the new message is worth delivering, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub ttl: Option<u32>,
    /// Instead of the payload that they have: this text.
    #[arg(long, short, group = "replacement", value_name = "TEXT")]
    pub message: Option<String>,
    /// Instead of it: a file.
    #[arg(long, short, group = "replacement", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Instead of it: all of standard input.
    #[arg(long, short, group = "replacement")]
    pub stdin: bool,
}

/// Which letters something is done with.
#[derive(Args, Debug)]
pub struct LetterChoice {
    /// Names of letters, such as 0-3-1017.
    #[arg(
        required_unless_present = "all",
        conflicts_with_all = ["all", "client", "topic_filter", "reason", "since", "until", "parked", "unparked"],
        value_name = "LETTER",
    )]
    pub letter: Vec<String>,
    /// All that fit the options.
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub filter: LetterFilterArgs,
}

#[derive(Args, Debug)]
pub struct LetterFilterArgs {
    /// Only those of this client.
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// Only those whose topic matches.
    #[arg(long, value_name = "FILTER")]
    pub topic_filter: Option<String>,
    /// Only those that ended so: refused, too_large, overflow, unacknowledged, attempts.
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Only those that ended in the last so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub since: Option<u64>,
    /// Only those that ended longer ago than that.
    #[arg(long, value_name = "SECONDS")]
    pub until: Option<u64>,
    /// Only those that wait for a human.
    #[arg(long, conflicts_with = "unparked")]
    pub parked: bool,
    /// Only those that do not.
    #[arg(long)]
    pub unparked: bool,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("traced").required(true).args(["message", "client", "topic"]).multiple(true))]
pub struct TraceArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    /// The message's id: 32 hexadecimal digits. It is known if its publisher asked for receipts, or if trace.sample took it.
    #[arg(conflicts_with_all = ["client", "topic", "lines_per_second", "count"], value_name = "MESSAGE")]
    pub message: Option<String>,
    /// Watch what concerns this client.
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// Watch what concerns messages whose topic matches.
    #[arg(long, value_name = "FILTER")]
    pub topic: Option<String>,
    /// Leave out what is more than so many lines in a second; how many those were is told.
    #[arg(long, value_name = "COUNT")]
    pub lines_per_second: Option<u32>,
    /// End after so many lines.
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

#[derive(Args, Debug)]
pub struct ReceiptsArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    /// Only those of this message.
    #[arg(long, value_name = "MESSAGE")]
    pub message: Option<String>,
    /// Only those of what this client or user has published.
    #[arg(long, value_name = "NAME")]
    pub publisher: Option<String>,
    /// Only those of this level: stored, sent, acknowledged, dead.
    #[arg(long, value_name = "LEVEL", value_parser = RECEIPT_LEVELS)]
    pub level: Option<String>,
    /// Begin behind this position; 0: with the oldest.
    #[arg(long, value_name = "POSITION")]
    pub after: Option<u64>,
    /// Go on with what comes.
    #[arg(long, short)]
    pub follow: bool,
    /// End after so many.
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

#[derive(Args, Debug)]
pub struct GroupArgs {
    #[command(subcommand)]
    pub action: GroupAction,
}

#[derive(Debug, Subcommand)]
pub enum GroupAction {
    /// List consumer groups.
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Make a group, or change what it subscribes to.
    Create {
        #[command(flatten)]
        api: ApiArgs,
        /// Its name.
        group: String,
        /// All that it subscribes to; without any it takes nothing more in.
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
    },
    /// Show all that is known of a group.
    Show {
        #[command(flatten)]
        api: ApiArgs,
        /// Its name.
        group: String,
    },
    /// Delete a group, with all that waits in it.
    Delete {
        #[command(flatten)]
        api: ApiArgs,
        /// Its name.
        group: String,
    },
    /// Lease deliveries and print them. They come back when their time is over, unless they are acknowledged.
    Take(TakeArgs),
    /// Say that deliveries are done.
    Ack {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        deliveries: DeliveryArgs,
    },
    /// Say that deliveries could not be done.
    Refuse {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        deliveries: DeliveryArgs,
        /// Seconds before they are given again.
        #[arg(long, value_name = "SECONDS", conflicts_with = "dead")]
        after: Option<u64>,
        /// They become dead letters at once.
        #[arg(long)]
        dead: bool,
        /// What was wrong.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

#[derive(Args, Debug)]
pub struct TakeArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    /// Name of the group.
    pub group: String,
    /// So many at most.
    #[arg(long, short = 'n', default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub limit: u64,
    /// For so many seconds nobody else gets them.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub lease: u64,
    /// If there are none, wait for the first one for so many seconds.
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=50))]
    pub wait: u64,
    /// Acknowledge them once they are printed.
    #[arg(long)]
    pub ack: bool,
}

#[derive(Args, Debug)]
pub struct DeliveryArgs {
    /// Name of the group.
    pub group: String,
    /// Names of deliveries, such as 0-3-1017-3094-1.
    #[arg(required = true, value_name = "DELIVERY")]
    pub deliveries: Vec<String>,
}

#[derive(Args, Debug)]
pub struct TopArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    /// Seconds between two looks.
    #[arg(long, short, default_value_t = 2, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// End after so many looks.
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Clients that are shown.
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub clients: u64,
}

#[derive(Args, Debug)]
pub struct ClientFilter {
    /// Only those that are connected.
    #[arg(long, conflicts_with = "offline")]
    pub connected: bool,
    /// Only those that are not.
    #[arg(long)]
    pub offline: bool,
    /// Only those of this user.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Only those of this group.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Only those whose identifier begins so.
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Only those for which at least so many deliveries wait or are in flight.
    #[arg(long, value_name = "COUNT")]
    pub backlog: Option<u64>,
}

#[derive(Args, Debug)]
pub struct PublishArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    /// Topics to publish to; $client/ID/TOPIC, $user/NAME/TOPIC, $group/NAME/TOPIC and $all/TOPIC push to devices.
    #[arg(required = true, value_name = "TOPIC")]
    pub topic: Vec<String>,
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// Quality of service: 0, 1 or 2.
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Retain the message.
    #[arg(long, short)]
    pub retain: bool,
    /// Time that the message is worth delivering, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub ttl: Option<u32>,
    /// What the payload is, for instance application/json.
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// A property that travels with the message. Can be given many times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub property: Vec<(String, String)>,
    #[command(flatten)]
    pub wishes: WishArgs,
}

/// What is wished for messages beyond what MQTT has.
#[derive(Args, Debug, Default)]
pub struct WishArgs {
    /// Which of the messages that wait for a receiver go first: high, normal or low.
    #[arg(long, value_name = "PRIORITY", value_parser = ["high", "normal", "low"])]
    pub priority: Option<String>,
    /// Replace what has this key and has not been sent.
    #[arg(long, value_name = "KEY")]
    pub collapse_key: Option<String>,
    /// Deliver it not before then, in milliseconds since 1970.
    #[arg(long, value_name = "UNIX_MS", conflicts_with = "deliver_after")]
    pub deliver_at: Option<u64>,
    /// Deliver it not before so many seconds have passed.
    #[arg(long, value_name = "SECONDS")]
    pub deliver_after: Option<u64>,
    /// A repeat under the same key is not published again. Of one message to one topic.
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    pub idempotency_key: Option<String>,
    /// Ask for receipts of this level, and those it includes: stored, sent, acknowledged; or dead, for failures alone.
    #[arg(long, value_name = "LEVEL", value_parser = RECEIPT_LEVELS)]
    pub receipt: Option<String>,
    /// Send it to a receiver so often at most, instead of retry.max_attempts.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub retry_attempts_max: Option<u32>,
    /// Send it to a receiver for so many seconds at most, instead of retry.max_age; 0: without limit.
    #[arg(long, value_name = "SECONDS")]
    pub retry_age_max: Option<u64>,
}

#[derive(Args, Debug)]
pub struct ConnectionArgs {
    /// Server to connect to.
    #[arg(long, short = 'h', default_value = "localhost", value_name = "HOST")]
    pub host: String,
    /// Its port.
    #[arg(long, short, default_value_t = 1883)]
    pub port: u16,
    /// Client identifier; drawn at random if it is missing.
    #[arg(long, short, value_name = "ID")]
    pub id: Option<String>,
    /// User name.
    #[arg(long, short, value_name = "NAME")]
    pub username: Option<String>,
    /// Password or device token.
    #[arg(long, short = 'P', env = "POSTROAD_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
    /// Keep alive, in seconds; 0: none.
    #[arg(long, short, default_value_t = 60, value_name = "SECONDS")]
    pub keepalive: u16,
    /// Version of MQTT: 3.1, 3.1.1 or 5.
    #[arg(long = "mqtt-version", short = 'V', default_value = "5", value_name = "VERSION")]
    pub version: WireVersion,
    /// Keep the session when the connection ends (needs --id).
    #[arg(long = "persistent", short = 'c', requires = "id")]
    pub persistent: bool,
    /// Time that the session outlives the connection, in seconds (MQTT 5). With -c: for ever by default.
    #[arg(long, value_name = "SECONDS")]
    pub session_expiry: Option<u32>,
    /// Topic of the will.
    #[arg(long, value_name = "TOPIC")]
    pub will_topic: Option<String>,
    /// Payload of the will.
    #[arg(long, requires = "will_topic", default_value = "", value_name = "TEXT")]
    pub will_payload: String,
    /// QoS of the will.
    #[arg(long, requires = "will_topic", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub will_qos: u8,
    /// Retain the will.
    #[arg(long, requires = "will_topic")]
    pub will_retain: bool,
    /// Delay of the will, in seconds (MQTT 5).
    #[arg(long, requires = "will_topic", default_value_t = 0, value_name = "SECONDS")]
    pub will_delay: u32,
    /// Tell each packet on standard error.
    #[arg(long)]
    pub debug: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WireVersion {
    #[value(name = "3.1", aliases = ["31", "mqttv31"])]
    V31,
    #[value(name = "3.1.1", aliases = ["311", "4", "mqttv311"])]
    V311,
    #[value(name = "5", aliases = ["5.0", "mqttv5"])]
    V5,
}

/// What is published.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub struct PayloadArgs {
    /// The message.
    #[arg(long, short, group = "source", value_name = "TEXT")]
    pub message: Option<String>,
    /// A file as the message.
    #[arg(long, short, group = "source", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Each line of standard input as a message.
    #[arg(long, short, group = "source")]
    pub lines: bool,
    /// All of standard input as one message.
    #[arg(long, short, group = "source")]
    pub stdin: bool,
    /// An empty message; with --retain it clears the retained one.
    #[arg(long, short, group = "source")]
    pub null: bool,
}

#[derive(Args, Debug)]
pub struct PubArgs {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Topic to publish to.
    #[arg(long, short)]
    pub topic: String,
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// Quality of service: 0, 1 or 2.
    #[arg(long, short, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Retain the message.
    #[arg(long, short)]
    pub retain: bool,
    /// Time that the message is worth delivering, in seconds (MQTT 5).
    #[arg(long = "expiry", short = 'x', value_name = "SECONDS")]
    pub expiry: Option<u32>,
    /// Publish the message this many times.
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub repeat: u32,
    /// What the payload is, for instance application/json (MQTT 5).
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Where an answer is expected (MQTT 5).
    #[arg(long, value_name = "TOPIC")]
    pub response_topic: Option<String>,
    /// What the answer should carry (MQTT 5).
    #[arg(long, value_name = "TEXT")]
    pub correlation_data: Option<String>,
    /// A user property (MQTT 5). Can be given many times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub user_property: Vec<(String, String)>,
    /// They go as user properties (MQTT 5).
    #[command(flatten)]
    pub wishes: WishArgs,
}

#[derive(Args, Debug)]
pub struct SubArgs {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Topic filter to subscribe to. Can be given many times.
    #[arg(long, short, required = true, value_name = "FILTER")]
    pub topic: Vec<String>,
    /// Highest quality of service: 0, 1 or 2.
    #[arg(long, short, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// End after this many messages.
    #[arg(long, short = 'C', value_name = "COUNT")]
    pub count: Option<u64>,
    /// End after this time, in seconds, with exit code 27.
    #[arg(long, short = 'W', value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Print the topic before each message.
    #[arg(long, short, conflicts_with = "format")]
    pub verbose: bool,
    /// How to print a message: %t topic, %p payload, %x payload in hex, %l its length, %q QoS, %r retain,
    /// %d duplicate, %m packet identifier, %U time in seconds since 1970, %j everything as JSON, %% a percent sign;
    /// \n \t \\ \0 as usual.
    #[arg(long, short = 'F', value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print no line end after a message.
    #[arg(long = "no-newline", short = 'N')]
    pub no_newline: bool,
    /// Print no retained messages.
    #[arg(long = "no-retained", short = 'R')]
    pub no_retained: bool,
    /// Ask for no messages of one's own (MQTT 5).
    #[arg(long)]
    pub no_local: bool,
    /// Time that the session outlives the connection, in seconds (MQTT 5): short for --session-expiry.
    #[arg(long = "expiry", short = 'x', value_name = "SECONDS", conflicts_with = "session_expiry")]
    pub expiry: Option<u32>,
    /// Number that the subscription carries (MQTT 5).
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=268_435_455))]
    pub subscription_identifier: Option<u32>,
}

#[derive(Args, Debug)]
pub struct LogArgs {
    #[command(subcommand)]
    pub action: LogAction,
}

#[derive(Debug, Subcommand)]
pub enum LogAction {
    /// Read every segment of a data directory and tell what recovery would do. Changes nothing.
    Check {
        /// The data directory.
        directory: PathBuf,
    },
    /// Cut a damaged log where it is last whole. What is cut is kept in quarantine/.
    Repair {
        /// The data directory.
        directory: PathBuf,
    },
}

#[derive(Args, Debug)]
pub struct ManArgs {
    /// postroad (the default), postroad-serve and so on, or config for postroad.toml(5).
    pub page: Option<String>,
    /// Print docs/configuration.md instead.
    #[arg(long, conflicts_with = "page")]
    pub markdown: bool,
    /// Write all pages into this directory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["page", "markdown"])]
    pub dir: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// `dlq drop ID --client x` dropped the letter, whosever it was: a filter beside names says nothing.
    #[test]
    fn what_says_nothing_is_refused() {
        let is_taken = |line: &str| super::Cli::command().try_get_matches_from(line.split(' ')).is_ok();
        assert!(is_taken("postroad dlq drop 0-3-1 0-3-2") && is_taken("postroad dlq drop --all --client x"));
        for filter in
            ["--client x", "--topic-filter x", "--reason x", "--since 1", "--until 1", "--parked", "--unparked"]
        {
            for action in ["drop", "park", "unpark", "requeue"] {
                assert!(!is_taken(&format!("postroad dlq {action} 0-3-1 {filter}")), "{action} {filter}");
            }
        }
        // It asked for a payload, so that no letter could be sent again as it was.
        assert!(is_taken("postroad dlq requeue 0-3-1") && is_taken("postroad dlq requeue 0-3-1 -m x"));
        assert!(!is_taken("postroad dlq requeue 0-3-1 -m x --stdin"));
        assert!(is_taken("postroad publish t -m x --deliver-after 5 --idempotency-key k"));
        assert!(!is_taken("postroad publish t -m x --deliver-after 5 --deliver-at 5"));
        assert!(!is_taken("postroad publish t -l --idempotency-key k"), "one key for many messages");
        assert!(!is_taken("postroad pub -t t -m x --priority urgent"));
    }
}
