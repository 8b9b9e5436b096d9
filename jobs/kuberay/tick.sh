#!/bin/sh
# What cronjob.yaml runs at each tick: create the RayJob of rayjob.yaml, beside this file, under the tick's name.
#
# JOB_NAME and JOB_UID are the Kubernetes Job's of the tick. Its name ends with the minute that the tick was due, so
# the RayJob has the same name however often a tick is tried, and is created once. The name is the build's too: an
# attempt after midnight goes on with the build of the day before. The Job owns the RayJob, which goes when the
# CronJob's history limits let its tick go.
set -eu
rayjob=$(dirname "$0")/rayjob.yaml

minute=${JOB_NAME##*-}
case $minute in
  *[!0-9]*) name=$JOB_NAME ;;                     # kubectl create job --from=cronjob/magpie-llama NAME
  *) name=${JOB_NAME%-*}-$(date -u -d "@$((minute * 60))" +%Y%m%d-%H%M) ;;
esac

if kubectl get rayjob "$name" --output name; then
  echo "$name is there already"
  exit 0
fi
entrypoint=$(kubectl patch --local --filename "$rayjob" --type merge --patch '{}' --output 'jsonpath={.spec.entrypoint}')
patch="
metadata:
  name: $name
  ownerReferences: [{apiVersion: batch/v1, kind: Job, name: \"$JOB_NAME\", uid: \"$JOB_UID\"}]
spec:
  entrypoint: |-
    $entrypoint output.build_id=$name
"
kubectl patch --local --filename "$rayjob" --type merge --patch "$patch" --output yaml | kubectl create --filename -
