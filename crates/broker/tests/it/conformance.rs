//! What every broker behind the port does. Each function is a test of both.

mod consuming;
mod declaring;
mod publishing;

pub(crate) use consuming::*;
pub(crate) use declaring::*;
pub(crate) use publishing::*;

/// Makes a module of tests out of the suite, for one subject.
macro_rules! conformance_of {
    ($subject:expr) => {
        conformance_of!($subject;
            what_is_published_arrives_and_is_gone_once_acked,
            every_property_and_kind_of_header_arrives_as_it_was,
            bodies_of_no_and_of_many_frames_arrive_whole,
            messages_arrive_in_the_order_of_publishing,
            without_a_route_a_message_is_returned,
            in_a_burst_every_message_gets_its_own_outcome,
            an_alternate_exchange_takes_what_nothing_else_takes,
            a_full_queue_refuses,
            an_exchange_that_is_not_there_costs_only_what_is_in_flight,
            what_amqp_cannot_carry_is_refused_at_once,
            no_more_than_the_window_is_delivered,
            acknowledging_through_a_delivery_settles_those_before_it_alone,
            requeued_messages_come_again_in_front_and_marked,
            rejected_messages_are_dead_lettered,
            past_the_delivery_limit_a_message_is_dead_lettered,
            an_exclusive_consumer_keeps_others_out,
            on_a_quorum_queue_an_exclusive_consumer_keeps_nobody_out,
            a_consumer_of_no_queue_is_refused,
            a_fanout_reaches_the_exclusive_queues_of_every_connection,
            an_exclusive_queue_drops_the_oldest_when_full,
            depth_counts_ready_messages_and_consumers,
            declaring_twice_changes_nothing_and_otherwise_is_refused,
            a_deleted_queue_is_gone,
            after_an_interruption_settling_does_nothing_and_messages_come_again,
            waiting_for_an_event_can_be_given_up_at_any_time,
            closing_a_consumer_hands_back_what_nobody_has_read,
            dropping_a_consumer_and_its_deliveries_gives_all_back,
            closing_the_broker_ends_publishers_and_consumers,
        );
    };
    ($subject:expr; $($test:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::bench::run($subject.await, async |bench| $crate::conformance::$test(bench).await).await;
            }
        )*
    };
}
pub(crate) use conformance_of;
