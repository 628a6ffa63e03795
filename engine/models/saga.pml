/* One saga, one creating step, two workers, one provider.
   Lease expiry is unconstrained (any worker may take the lease at any time) = worst case for clocks.
   Time is not modelled by numbers: "after not_after + settle_after" is the moment at which, if the assumption
   holds, no call of an earlier attempt is in the network and the list shows all that is there.
   Flags: FENCE  journal writes are conditional on the lease epoch
          INTENT intent + ledger row written before the call
          IDEMP  provider dedups on a key that is the same for all attempts of the step
          BURN   provider remembers the key after the resource is deleted (else key is free again)
          FORCE  the undo creates once more under the same key, then deletes
          TAG    provider can list by our tag (else only a recorded id can be deleted)
          LAG    the list shows what was made only later
          LOOK   a lost attempt is looked for before the call is made again (else it is simply sent again)
          LOOK2  that nothing is there is believed at the second look, settle_after apart (else at the first)
          WAIT   a call that cannot end by not_after is not sent, and the undo waits for not_after + settle_after
          SETTLE ledger row survives UNDONE until no create can be in the network any more
          RECON  a sweep lists by tag for ever and removes what nobody owns
   Assumptions, each with a switch:
          LANDS  a call lands, and is listed, within settle_after of its not_after
          STALL  a process may stand still between its deadline check and its send (the assumption is that none does) */
#ifndef FENCE
#define FENCE 0
#endif
#ifndef INTENT
#define INTENT 0
#endif
#ifndef IDEMP
#define IDEMP 0
#endif
#ifndef BURN
#define BURN 0
#endif
#ifndef TAG
#define TAG 0
#endif
#ifndef LAG
#define LAG 0
#endif
#ifndef LOOK
#define LOOK 0
#endif
#ifndef LOOK2
#define LOOK2 0
#endif
#ifndef WAIT
#define WAIT 0
#endif
#ifndef LANDS
#define LANDS 1
#endif
#ifndef STALL
#define STALL 0
#endif
#ifndef SETTLE
#define SETTLE 0
#endif
#ifndef RECON
#define RECON 0
#endif
#ifndef MAXA
#define MAXA 3
#endif
#ifndef CAS
#define CAS 1
#endif
#ifndef FORCE
#define FORCE 0
#endif
#define RUN 0
#define COMP 1
#define OK 2
#define UNDONE 3

byte epoch=0, attempts=0, status=RUN, live=0, inflight=0;
byte unlisted=0;              /* made, and not in the list yet */
byte passed=0;              /* attempts up to this one are past their not_after + settle_after */
bool intent=0, recorded=0, ledger=0, keyused=0;

#define MAY (!FENCE || my==epoch)
#define ST(x) (!CAS || status==x)
#define SEEN (live>unlisted)
/* what was waited for: all that was sent has landed and is listed, or the assumption does not hold */
#define OVER (!LANDS || (inflight==0 && unlisted==0))
/* a call is sent only while it can end in time */
#define INTIME (!WAIT || my>passed)

inline apply() {            /* provider executes one create */
  if
  :: IDEMP && keyused -> skip            /* same key: no new resource */
  :: else -> live++; keyused=1; if :: LAG -> unlisted++ :: else -> skip fi
  fi
}

inline remove() {           /* provider deletes what its list shows of us */
  if :: FORCE -> apply() :: else -> skip fi;
  live=unlisted;
  if :: BURN || live>0 -> skip :: else -> keyused=0 fi
}

proctype net(){             /* delivers creates at any later time, in any order; the list catches up */
  end:
  do
  :: atomic { inflight>0 -> inflight--; apply(); }
  :: atomic { unlisted>0 -> unlisted-- }
  od
}

proctype worker(byte me){
  byte my; bool got, mine;
  end:
again:
  do
  :: atomic { status<OK && attempts<MAXA -> epoch++; attempts++; my=epoch; got=0; mine=0 }
     if
     :: status==RUN ->
        if
        :: recorded -> skip
        :: else ->
           if
           :: LOOK && intent ->                             /* an attempt may have been: look for it */
              if
              :: atomic { SEEN -> if :: MAY -> recorded=1 :: else -> skip; goto again fi }
              :: atomic { !SEEN && !LOOK2 -> skip }                 /* believed at the first look */
              :: atomic { LOOK2 && OVER && !SEEN -> passed=my-1 }   /* believed at the second */
              :: skip -> goto again                                 /* crash, or the look failed */
              fi
           :: else -> skip
           fi;
           if
           :: recorded -> goto rest
           :: else -> skip
           fi;
           if
           :: INTENT ->
              atomic { skip; if :: MAY -> intent=1; ledger=1 :: else -> skip; goto again fi }
           :: else -> skip
           fi;
           /* the call: may be lost before sending, delayed, or applied with the answer lost */
           if
           :: skip -> goto again                                   /* crash before send */
           :: atomic { !STALL -> if :: INTIME && inflight<3 -> inflight++ :: else -> goto again fi };
              mine=1
           :: atomic { STALL -> mine=INTIME };                     /* the deadline check, and then it stands still */
              if
              :: atomic { mine && inflight<3 -> inflight++ }
              :: else -> goto again
              fi
           fi;
           if
           :: atomic { inflight>0 -> inflight--; apply(); got=1 }   /* applied, answer arrives */
           :: atomic { inflight>0 -> inflight--; apply(); } ; goto again /* applied, crash before record */
           :: skip                                       /* time-out: still in the network */
           fi;
           if
           :: got ->
              atomic { skip; if :: MAY -> recorded=1 :: else -> skip; goto again fi }
           :: else ->                                       /* ambiguous */
              if
              :: skip -> goto again                                 /* retry later */
              :: atomic { skip; if :: MAY && ST(RUN) -> status=COMP :: else -> skip; goto again fi }
                 goto comp
              fi
           fi
        fi;
rest:
        if                                                  /* the rest of the saga */
        :: atomic { skip; if :: MAY && ST(RUN) && (recorded||got) -> status=OK; ledger=0 :: else -> skip; goto again fi }
        :: atomic { skip; if :: MAY && ST(RUN) -> status=COMP :: else -> skip; goto again fi }; goto comp
        :: skip -> goto again                                       /* crash */
        fi
     :: status==COMP ->
comp:
        if
        :: skip -> goto again                                       /* crash before delete */
        :: WAIT -> atomic { OVER -> passed=epoch }                  /* every lost attempt is surely over */
        :: !WAIT -> skip
        fi;
        atomic { skip;
             if
             :: TAG -> remove()
             :: !TAG && recorded && live>0 -> live--; if :: BURN -> skip :: else -> keyused=0 fi
             :: else -> skip
             fi };
        atomic { skip; if :: MAY && ST(COMP) -> status=UNDONE; if :: SETTLE -> skip :: else -> ledger=0 fi
                    :: else -> skip; goto again fi }
     :: status>=OK -> skip
     fi
  od
}

active proctype sweeper(){
  end:
  do
  :: atomic { SETTLE && status==UNDONE && ledger && inflight==0 ->   /* settle window over */
       if :: TAG -> live=0; unlisted=0 :: else -> skip fi;
       ledger=0 }
  :: atomic { RECON && TAG && status==UNDONE && !ledger && live>unlisted -> live=unlisted }
  :: atomic { RECON && TAG && status==OK && live>1 && unlisted==0 -> live=1 }  /* a twin that nobody owns */
  od
}

active proctype monitor(){
  end:
  do
  :: timeout ->
       if
       :: status==OK -> assert(live==1)          /* exactly one, and it is the recorded one */
       :: status==UNDONE -> assert(live==0)      /* nothing left behind */
       :: status<OK -> assert(live==0 || ledger) /* attempts ran out: must be on the ledger */
       fi;
       break
  od
}

init { atomic { run net(); run worker(0); run worker(1) } }
