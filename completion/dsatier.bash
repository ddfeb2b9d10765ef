# SPDX-License-Identifier: Apache-2.0
# made by tools.docs.completion: do not edit
# shellcheck shell=bash
_dsatier() {
    local line=${COMP_LINE:0:COMP_POINT} command= word i skip= rest=
    local -a words
    # of our own splitting: bash breaks words at the colon of sim:NAME
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local cur=${words[${#words[@]}-1]} prev=${words[${#words[@]}-2]}
    COMPREPLY=()
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        word=${words[i]}
        if [[ -n $skip ]]; then skip=; continue; fi
        [[ $word == -- ]] && rest=1
        case $word in
            --as|-p|--profile|--facts|--root|--host|--sim-state|--plan|--since|--log-level|--timeout) skip=1 ;;
            -*) ;;
            *) [[ -z $command ]] && command=$word ;;
        esac
    done
    local options= takes=
    case $command in
        "") options="--help --version"; takes="words:check plan apply reconcile verify status history daemon reload wait nudge simulate rollback detach clear facts doctor explain cat-config measure install-service uninstall-service demo" ;;
        check) options="--as --json -h --help"; takes=files ;;
        plan) options="-p --profile --facts --json --detailed-exitcode --root --host --sim-state -h --help" ;;
        apply) options="-p --profile --plan --json -q --quiet --root --host --sim-state -h --help" ;;
        reconcile) options="-p --profile --json -q --quiet --root --host --sim-state -h --help" ;;
        verify) options="-p --profile --json --root --host --sim-state -h --help" ;;
        status) options="--json --check --watch --root --host --sim-state -h --help" ;;
        history) options="--since --json --root --host --sim-state -h --help" ;;
        daemon) options="--log-level --root --host --sim-state -h --help" ;;
        reload) options="--timeout --json -q --quiet --root -h --help" ;;
        wait) options="--timeout --root -h --help" ;;
        nudge) options="--json --root -h --help" ;;
        simulate) options="--root -h --help"; takes="words:poke inject heal reboot harm" ;;
        rollback) options="--json -q --quiet --root --host --sim-state -h --help" ;;
        detach) options="--json -q --quiet --root --host --sim-state -h --help" ;;
        clear) options="--json --root --host --sim-state -h --help" ;;
        facts) options="--json --root --host --sim-state -h --help" ;;
        doctor) options="-p --profile --facts --json --root --host --sim-state -h --help" ;;
        explain) options="-p --profile --json --root --host --sim-state -h --help"; takes="words:version match match.hostname match.release match.abi match.cpu_model match.numa match.numa.nodes match.numa.cpuless_nodes tiers tiers.nodes tiers.nodes.fast tiers.nodes.slow tiers.nodes.near tiers.nodes.hbm tiers.online tiers.online.nodes tiers.online.zone tiers.fast_node tiers.slow_node tiers.cpuless concurrency concurrency.use_concur_to_compact concurrency.use_concur_to_demote concurrency.use_concur_for_htmm concurrency.migrate_batch_reasons concurrency.migrate_batch_pages concurrency.migrate_batch_usecs engine engine.kind engine.limit_mt_num engine.cpu_multi_copy_threshold engine.migrate_engine_reasons engine.migrate_copy_calibrate engine.limit_chans engine.dsa_copy_threshold engine.work_queues engine.work_queues.file engine.work_queues.iommu engine.work_queues.devices engine.work_queues.engines engine.work_queues.queues engine.work_queues.size engine.on_fault tiering tiering.demotion_enabled tiering.numa_balancing tiering.promote_rate_limit_MBps tiering.demote_scale_factor tiering.swap memory memory.watermark_scale_factor memory.watermark_boost_factor memory.compaction_proactiveness memory.zone_reclaim_mode memory.thp_enabled memory.thp_defrag drift drift.policy drift.interval drift.fights drift.window" ;;
        cat-config) options="-p --profile --json --root --host --sim-state -h --help" ;;
        measure) options="--json --root --host --sim-state -h --help"; takes=commands ;;
        install-service) options="--dry-run --root -h --help" ;;
        uninstall-service) options="--dry-run --root -h --help" ;;
        demo) options="--fast -h --help" ;;
    esac
    if [[ -n $rest ]]; then
        # the command to measure, then whatever it takes
        options=
        [[ $prev != -- ]] && takes=files
    elif [[ $cur == --*=* ]]; then
        prev=${cur%%=*}
        cur=${cur#*=}
    fi
    case $prev in
        --as) takes=files options= ;;
        -p|--profile) takes=files options= ;;
        --facts) takes=files options= ;;
        --root) takes=folders options= ;;
        --host) takes=hosts options= ;;
        --sim-state) takes=files options= ;;
        --plan) takes=files options= ;;
        --since) takes="words:today yesterday 1h 12h 7d" options= ;;
        --log-level) takes="words:debug info notice warning error" options= ;;
        --timeout) takes="words:" options= ;;
    esac
    if [[ $cur == -* && -n $options ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi
    case $takes in
        words:*) mapfile -t COMPREPLY < <(compgen -W "${takes#words:}" -- "$cur") ;;
        files)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            ;;
        folders)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$cur")
            ;;
        commands) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
        hosts)
            if [[ $cur == sim:*[./]* ]]; then
                mapfile -t COMPREPLY < <(compgen -f -P sim: -- "${cur#sim:}")
            else
                mapfile -t COMPREPLY < <(compgen -W "sim:dsa2 sim:dsa8 sim:dsa8-seed sim:memtis-seed sim:no-dsa sim:single-node sim:stock-6-1 sim:stock-6-12 sim:stock-7-2 sim:stock-debian sim:stock-offline sim:swap-on" -- "$cur")
            fi
            if [[ $COMP_WORDBREAKS == *:* && $cur == *:* ]]; then
                # what stands before the last colon is a word of its own to bash
                COMPREPLY=("${COMPREPLY[@]#"${cur%:*}:"}")
            fi
            ;;
    esac
}
complete -F _dsatier dsatier
