#!/bin/sh
# What cronjob.yaml runs at each tick: create the RayJob of rayjob.yaml, beside this file, under the tick's name.
#
# JOB_NAME and JOB_UID are the Kubernetes Job's of the tick. Its name ends with the minute that the tick was due, so
# the RayJob has the same name however often a tick is tried, and is created once. The Job owns it: a RayJob goes
# when the CronJob's history limits let its tick go.
set -eu

minute=${JOB_NAME##*-}
case $minute in
  *[!0-9]*) name=$JOB_NAME ;;                     # kubectl create job --from=cronjob/magpie-llama NAME
  *) name=${JOB_NAME%-*}-$(date -u -d "@$((minute * 60))" +%Y%m%d-%H%M) ;;
esac

if kubectl get rayjob "$name" --output name; then
  echo "$name is there already"
  exit 0
fi
owner="{\"apiVersion\": \"batch/v1\", \"kind\": \"Job\", \"name\": \"$JOB_NAME\", \"uid\": \"$JOB_UID\"}"
kubectl patch --local --filename "$(dirname "$0")/rayjob.yaml" --type merge --output yaml \
  --patch "{\"metadata\": {\"name\": \"$name\", \"ownerReferences\": [$owner]}}" |
  kubectl create --filename -
